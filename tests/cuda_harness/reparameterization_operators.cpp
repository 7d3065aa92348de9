#include "../../csrc/reparameterization/op.cpp"
