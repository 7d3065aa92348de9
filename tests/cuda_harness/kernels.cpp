// The CUDA operators as they are, on CPU tensors, under torch.ops.mcfa_fast_harness. One translation unit saves time.
#include "../../csrc/contrastive/cuda_forward.cu"
#include "../../csrc/contrastive/cuda_backward.cu"
#include "../../csrc/alignment/cuda.cu"
#include "../../csrc/divergence/cuda.cu"
#include "../../csrc/reconstruction/cuda.cu"
#include "../../csrc/reparameterization/cuda.cu"
