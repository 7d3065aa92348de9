// Every kernel that the library ships, instantiated without PyTorch, for the compiler's resource report.
#include "../../csrc/alignment/kernels.cuh"
#include "../../csrc/contrastive/kernels.cuh"
#include "../../csrc/divergence/kernels.cuh"
#include "../../csrc/reconstruction/kernels.cuh"
#include "../../csrc/reparameterization/kernels.cuh"

namespace mcfa_fast {

#define MCFA_ROWS(T)                                                                                               \
  template __global__ void latents_kernel<T>(                                                                      \
      const T*, const int64_t*, const int64_t*, int64_t, int64_t, int64_t, bool, T*, Accumulate<T>*);              \
  template __global__ void class_sums_kernel<T>(                                                                   \
      const T*, const int64_t*, const int64_t*, int64_t, Accumulate<T>*, Accumulate<T>*);                          \
  template __global__ void own_products_kernel<T>(                                                                 \
      const T*, const T*, const int64_t*, const int64_t*, int64_t, Accumulate<T>*);                                \
  template __global__ void finish_visual_kernel<T>(const FinishVisual<T>);                                         \
  template __global__ void pull_back_kernel<T>(const PullBack<T>, const int64_t*, const int64_t*);                 \
  template __global__ void chunk_forward_kernel<T>(const ForwardPairs<T>, const Chunk<Accumulate<T>>);             \
  template __global__ void chunk_columns_kernel<T>(const ForwardPairs<T>, const Chunk<Accumulate<T>>);             \
  template __global__ void chunk_backward_kernel<T>(const BackwardPairs<T>, const Chunk<Accumulate<T>>, T*, int64_t);       \
  MCFA_KL(T, 1)                                                                                                    \
  MCFA_KL(T, 16 / sizeof(T))                                                                                       \
  MCFA_WASSERSTEIN(T, 1)                                                                                           \
  MCFA_WASSERSTEIN(T, 16 / sizeof(T))                                                                              \
  MCFA_L1(T, 1)                                                                                                    \
  MCFA_L1(T, 16 / sizeof(T))                                                                                       \
  template __global__ void l1_classes_kernel<T>(                                                                   \
      const Reconstruction<T>, const int64_t*, const int64_t*, const Accumulate<T>*, T*);                          \
  MCFA_REPARAMETERIZE(T, 1)                                                                                        \
  MCFA_REPARAMETERIZE(T, 16 / sizeof(T))                                                                           \
  template __global__ void wasserstein_classes_kernel<T>(                                                          \
      const Gaussians<T>, const WassersteinGrads<T>, const int64_t*, const int64_t*, const ClassSums<Accumulate<T>>);
#define MCFA_WASSERSTEIN(T, kVector)                                                                               \
  template __global__ void wasserstein_forward_kernel<T, kVector>(                                                 \
      const Gaussians<T>, const int64_t*, Accumulate<T>*);                                                         \
  template __global__ void wasserstein_backward_kernel<T, kVector>(                                                \
      const Gaussians<T>, const WassersteinGrads<T>, const int64_t*, const int64_t*, const ClassSums<Accumulate<T>>);
#define MCFA_KL(T, kVector)                                                                                        \
  template __global__ void kl_forward_kernel<T, kVector>(                                                          \
      const T*, const T*, int64_t, int64_t, int, Accumulate<T>*);                                                  \
  template __global__ void kl_backward_kernel<T, kVector>(                                                         \
      const T*, const T*, int64_t, int64_t, const KLGrads<T>);
#define MCFA_L1(T, kVector)                                                                                        \
  template __global__ void l1_forward_kernel<T, kVector>(                                                          \
      const Reconstruction<T>, const int64_t*, int, Accumulate<T>*);                                               \
  template __global__ void l1_rows_backward_kernel<T, kVector>(                                                    \
      const Reconstruction<T>, const L1Grads<T>, const int64_t*);                                                  \
  template __global__ void l1_sorted_backward_kernel<T, kVector>(                                                  \
      const Reconstruction<T>, const L1Grads<T>, const int64_t*, const int64_t*, Accumulate<T>*);
#define MCFA_REPARAMETERIZE(T, kVector)                                                                            \
  template __global__ void reparameterize_forward_kernel<T, kVector>(                                              \
      const Reparameterization<T>, const T*, T*);                                                                  \
  template __global__ void reparameterize_backward_kernel<T, kVector>(                                             \
      const Reparameterization<T>, const T*, T*);
#define MCFA_SUMS(A)                                                                                               \
  template __global__ void class_heads_kernel<A>(                                                                  \
      const A*, const int64_t*, const int64_t*, const int64_t*, int64_t, A*);                                      \
  template __global__ void class_products_kernel<A>(                                                               \
      const A*, const int64_t*, const int64_t*, bool, const double*, A*);                                          \
  template __global__ void finish_semantic_kernel<A>(                                                              \
      int64_t, const double*, bool, bool, const int64_t*, const int64_t*, const A*, const SplitSums<A>,            \
      const AnchorResults<A>);                                                                                     \
  template __global__ void anchor_terms_kernel<A>(const AnchorTerms<A>);                                           \
  template __global__ void own_weights_kernel<A>(                                                                  \
      int64_t, const double*, bool, const int64_t*, const int64_t*, const int64_t*, const int64_t*, const A*,      \
      const A*, const A*, const A*, const A*, A*);                                                                 \
  template __global__ void simt_forward_kernel<A>(const ForwardPairs<A>);
#define MCFA_SIMT(A, kWidth) template __global__ void simt_backward_kernel<A, kWidth>(const BackwardPairs<A>);
#define MCFA_MMA(T, kWidth)                                                                                        \
  template __global__ void mma_forward_kernel<T, kWidth>(const ForwardPairs<T>);                                   \
  template __global__ void mma_symmetric_kernel<T, kWidth>(const ForwardPairs<T>, const SymmetricChunks);          \
  template __global__ void mma_backward_kernel<T, kWidth>(const BackwardPairs<T>);
#define MCFA_HOPPER(T, kWidth)                                                                                     \
  template __global__ void hopper_backward_kernel<T, kWidth, false>(const BackwardPairs<T>);                       \
  template __global__ void hopper_backward_kernel<T, kWidth, true>(const BackwardPairs<T>);

MCFA_ROWS(float)
MCFA_ROWS(double)
MCFA_ROWS(float16)
MCFA_ROWS(bfloat16)
MCFA_SUMS(float)
MCFA_SUMS(double)
MCFA_SIMT(float, 64)
MCFA_SIMT(float, 128)
MCFA_SIMT(float, 256)
MCFA_SIMT(double, 64)
MCFA_MMA(float16, 64)
MCFA_MMA(float16, 128)
MCFA_MMA(float16, 256)
MCFA_MMA(bfloat16, 64)
MCFA_MMA(bfloat16, 128)
MCFA_MMA(bfloat16, 256)
MCFA_HOPPER(float16, 64)
MCFA_HOPPER(float16, 128)
MCFA_HOPPER(bfloat16, 64)
MCFA_HOPPER(bfloat16, 128)

}  // namespace mcfa_fast
