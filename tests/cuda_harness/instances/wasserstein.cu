// Every kernel of this operator that the library ships, instantiated without PyTorch, for the compiler's resource report.
#include "../../../csrc/wasserstein/kernels.cuh"

namespace mcfa_fast {

#define MCFA_WASSERSTEIN(T, kVector)                                                                               \
  template __global__ void wasserstein_forward_kernel<T, kVector>(                                                 \
      const Gaussians<T>, const int64_t*, Accumulate<T>*);                                                         \
  template __global__ void wasserstein_backward_kernel<T, kVector>(                                                \
      const Gaussians<T>, const WassersteinGrads<T>, const int64_t*, const int64_t*, const ClassSums<Accumulate<T>>);

#define MCFA_WASSERSTEIN_CLASSES(T)                                                                                \
  template __global__ void wasserstein_classes_kernel<T>(                                                          \
      const Gaussians<T>, const WassersteinGrads<T>, const int64_t*, const int64_t*, const ClassSums<Accumulate<T>>);

MCFA_WASSERSTEIN(float, 1)
MCFA_WASSERSTEIN(float, 16 / sizeof(float))
MCFA_WASSERSTEIN_CLASSES(float)
MCFA_WASSERSTEIN(double, 1)
MCFA_WASSERSTEIN(double, 16 / sizeof(double))
MCFA_WASSERSTEIN_CLASSES(double)
MCFA_WASSERSTEIN(float16, 1)
MCFA_WASSERSTEIN(float16, 16 / sizeof(float16))
MCFA_WASSERSTEIN_CLASSES(float16)
MCFA_WASSERSTEIN(bfloat16, 1)
MCFA_WASSERSTEIN(bfloat16, 16 / sizeof(bfloat16))
MCFA_WASSERSTEIN_CLASSES(bfloat16)

}  // namespace mcfa_fast
