#include "../../csrc/library.cpp"
#include "../../csrc/common/checks.cpp"
#include "../../csrc/contrastive/op.cpp"
