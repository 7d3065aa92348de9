// Every kernel of this operator that the library ships, instantiated without PyTorch, for the compiler's resource report.
#include "../../../csrc/reparameterize/kernels.cuh"

namespace mcfa_fast {

#define MCFA_REPARAMETERIZE(T, kVector)                                                                            \
  template __global__ void reparameterize_forward_kernel<T, kVector>(                                              \
      const Reparameterization<T>, const T*, T*);                                                                  \
  template __global__ void reparameterize_backward_kernel<T, kVector>(                                             \
      const Reparameterization<T>, const T*, T*);

MCFA_REPARAMETERIZE(float, 1)
MCFA_REPARAMETERIZE(float, 16 / sizeof(float))
MCFA_REPARAMETERIZE(double, 1)
MCFA_REPARAMETERIZE(double, 16 / sizeof(double))
MCFA_REPARAMETERIZE(float16, 1)
MCFA_REPARAMETERIZE(float16, 16 / sizeof(float16))
MCFA_REPARAMETERIZE(bfloat16, 1)
MCFA_REPARAMETERIZE(bfloat16, 16 / sizeof(bfloat16))

}  // namespace mcfa_fast
