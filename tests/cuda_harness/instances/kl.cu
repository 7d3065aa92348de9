// Every kernel of this operator that the library ships, instantiated without PyTorch, for the compiler's resource report.
#include "../../../csrc/kl/kernels.cuh"

namespace mcfa_fast {

#define MCFA_KL(T, kVector)                                                                                        \
  template __global__ void kl_forward_kernel<T, kVector>(                                                          \
      const T*, const T*, int64_t, int64_t, int, Accumulate<T>*);                                                  \
  template __global__ void kl_backward_kernel<T, kVector>(                                                         \
      const T*, const T*, int64_t, int64_t, const KLGrads<T>);

MCFA_KL(float, 1)
MCFA_KL(float, 16 / sizeof(float))
MCFA_KL(double, 1)
MCFA_KL(double, 16 / sizeof(double))
MCFA_KL(float16, 1)
MCFA_KL(float16, 16 / sizeof(float16))
MCFA_KL(bfloat16, 1)
MCFA_KL(bfloat16, 16 / sizeof(bfloat16))

}  // namespace mcfa_fast
