#include "../../csrc/reconstruction/op.cpp"
