// Every kernel of this operator that the library ships, instantiated without PyTorch, for the compiler's resource report.
#include "../../../csrc/contrastive/cuda/kernels.cuh"

namespace mcfa_fast {

#define MCFA_ROW_KERNELS(T)                                                                                               \
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
  template __global__ void chunk_backward_kernel<T>(const BackwardPairs<T>, const Chunk<Accumulate<T>>, T*, int64_t);

#define MCFA_SUMS(A)                                                                                               \
  template __global__ void chunk_selves_kernel<A>(const SelfPairs, const Chunk<A>);                                \
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
  template __global__ void mma_forward_kernel<T, kWidth, false>(const ForwardPairs<T>);                            \
  template __global__ void mma_forward_kernel<T, kWidth, true>(const ForwardPairs<T>);                             \
  template __global__ void mma_symmetric_kernel<T, kWidth>(const ForwardPairs<T>, const SymmetricChunks);          \
  template __global__ void mma_backward_kernel<T, kWidth>(const BackwardPairs<T>);

#define MCFA_HOPPER(T, kWidth)                                                                                     \
  template __global__ void hopper_backward_kernel<T, kWidth, false>(const BackwardPairs<T>);                       \
  template __global__ void hopper_backward_kernel<T, kWidth, true>(const BackwardPairs<T>);

MCFA_ROW_KERNELS(float)
MCFA_ROW_KERNELS(double)
MCFA_ROW_KERNELS(float16)
MCFA_ROW_KERNELS(bfloat16)
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
