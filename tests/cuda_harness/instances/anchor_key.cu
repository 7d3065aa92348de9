// Every kernel of this operator's own that the library ships, instantiated without PyTorch, for the compiler's resource
// report.
#include "../../../csrc/anchor_key/kernels.cuh"

namespace mcfa_fast {

template __global__ void finish_side_kernel<float>(const FinishSide<float>);
template __global__ void finish_side_kernel<double>(const FinishSide<double>);
template __global__ void finish_side_kernel<float16>(const FinishSide<float16>);
template __global__ void finish_side_kernel<bfloat16>(const FinishSide<bfloat16>);
template __global__ void side_terms_kernel<float>(const SideTermsArguments<float>);
template __global__ void side_terms_kernel<double>(const SideTermsArguments<double>);

}  // namespace mcfa_fast
