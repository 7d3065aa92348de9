#include "../../csrc/divergence/op.cpp"
