#include "../../csrc/alignment/op.cpp"
