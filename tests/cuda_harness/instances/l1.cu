// Every kernel of this operator that the library ships, instantiated without PyTorch, for the compiler's resource report.
#include "../../../csrc/l1/kernels.cuh"

namespace mcfa_fast {

#define MCFA_L1(T, kVector)                                                                                        \
  template __global__ void l1_forward_kernel<T, kVector>(                                                          \
      const L1Inputs<T>, const int64_t*, int, Accumulate<T>*);                                               \
  template __global__ void l1_rows_backward_kernel<T, kVector>(                                                    \
      const L1Inputs<T>, const L1Grads<T>, const int64_t*);                                                  \
  template __global__ void l1_sorted_backward_kernel<T, kVector>(                                                  \
      const L1Inputs<T>, const L1Grads<T>, const int64_t*, const int64_t*, Accumulate<T>*);

#define MCFA_L1_CLASSES(T)                                                                                          \
  template __global__ void l1_classes_kernel<T>(                                                                   \
      const L1Inputs<T>, const int64_t*, const int64_t*, const Accumulate<T>*, T*);

MCFA_L1(float, 1)
MCFA_L1(float, 16 / sizeof(float))
MCFA_L1_CLASSES(float)
MCFA_L1(double, 1)
MCFA_L1(double, 16 / sizeof(double))
MCFA_L1_CLASSES(double)
MCFA_L1(float16, 1)
MCFA_L1(float16, 16 / sizeof(float16))
MCFA_L1_CLASSES(float16)
MCFA_L1(bfloat16, 1)
MCFA_L1(bfloat16, 16 / sizeof(bfloat16))
MCFA_L1_CLASSES(bfloat16)

}  // namespace mcfa_fast
