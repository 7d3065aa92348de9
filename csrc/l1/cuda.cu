// The gathered L1 distance on the GPU. A label outside [0, C) stops with a device assertion.
#include "../common/sorted_labels.cuh"
#include "kernels.cuh"
#include "op.h"

namespace mcfa_fast {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

template <typename T>
L1Inputs<T> arguments(const Tensor& instances, const Tensor& table) {
  return {
      input_pointer<T>(instances), input_pointer<T>(table), instances.size(0), table.size(0), instances.size(1)};
}

template <typename T, int kVector>
void launch_l1_forward(const L1Inputs<T>& args, const Tensor& labels, const Tensor& distance) {
  const int group = lanes_per_row(args.width, kVector);
  launch(
      l1_forward_kernel<T, kVector>, blocks_for(args.rows * group, kL1Threads), kL1Threads, 0,
      args, input_pointer<int64_t>(labels), group, output_pointer<Accumulate<T>>(distance));
}

template <typename T, int kVector>
void launch_l1_rows(const L1Inputs<T>& args, const L1Grads<T>& grads, const Tensor& labels) {
  launch(
      l1_rows_backward_kernel<T, kVector>, blocks_for(args.rows * args.width / kVector, kL1Threads),
      kL1Threads, 0, args, grads, input_pointer<int64_t>(labels));
}

template <typename T, int kVector>
void launch_l1_classes(const L1Inputs<T>& args, const L1Grads<T>& grads, const Tensor& labels) {
  using A = Accumulate<T>;
  const auto sorted = SortedLabelsOnDevice::of(labels, std::nullopt, args.classes, true);
  const int64_t chunks = (args.rows + kL1Rows - 1) / kL1Rows;
  const auto sums = at::empty(
      {args.classes + chunks, args.width}, labels.options().dtype(c10::CppTypeToScalarType<A>::value));
  launch(
      l1_sorted_backward_kernel<T, kVector>, blocks_for(chunks * (args.width / kVector), kL1Threads),
      kL1Threads, 0, args, grads, input_pointer<int64_t>(sorted.keys), input_pointer<int64_t>(sorted.order),
      output_pointer<A>(sums));
  launch(
      l1_classes_kernel<T>, static_cast<unsigned>(args.classes * blocks_for(args.width, kClassColumns)),
      kL1Threads, kL1Threads * sizeof(A), args, input_pointer<int64_t>(sorted.class_begin),
      input_pointer<int64_t>(sorted.class_end), input_pointer<A>(sums), grads.table);
}

Tensor l1_forward_cuda(
    const Tensor& instances_input, const Tensor& table_input, const OptionalTensor& labels_input,
    std::string_view reduction_name) {
  const auto reduction = parse_reduction(reduction_name);
  const c10::DeviceGuard guard(instances_input.device());
  const auto instances = instances_input.contiguous();
  const auto table = table_input.contiguous();
  const auto labels = labels_input ? labels_input->to(at::kLong).contiguous() : Tensor();
  const auto distance =
      at::empty({instances.size(0)}, instances.options().dtype(accumulation_type(instances.scalar_type())));
  with_device_type(instances.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const auto run =
        vectorizes<T>({instances, table}) ? launch_l1_forward<T, kWidestVector<T>> : launch_l1_forward<T, 1>;
    run(arguments<T>(instances, table), labels, distance);
  });
  return reduced(distance, reduction);
}

L1Backward::Result l1_backward_cuda(
    const Tensor& grad_loss, const Tensor& instances_input, const Tensor& table_input,
    const OptionalTensor& labels_input, std::string_view reduction_name, L1Backward::Mask mask) {
  const auto reduction = parse_reduction(reduction_name);
  const c10::DeviceGuard guard(instances_input.device());
  const auto instances = instances_input.contiguous();
  const auto table = table_input.contiguous();
  const auto labels = labels_input ? labels_input->to(at::kLong).contiguous() : Tensor();
  const auto grad = grad_loss.to(accumulation_type(instances.scalar_type())).contiguous();
  const auto grad_instances = mask[0] ? at::empty_like(instances) : Tensor();
  const auto grad_table = mask[1] ? at::empty_like(table) : Tensor();
  const double scale = reduction == Reduction::kMean ? 1.0 / std::max<int64_t>(instances.size(0), 1) : 1.0;
  with_device_type(instances.scalar_type(), [&](auto type) {
    using T = decltype(type);
    using A = Accumulate<T>;
    const L1Grads<T> grads{
        input_pointer<A>(grad), grad.dim(), static_cast<A>(scale), output_pointer<T>(grad_instances),
        output_pointer<T>(grad_table)};
    const bool vectorize = vectorizes<T>({instances, table});
    const bool by_class = labels.defined() && mask[1];
    constexpr int kVector = kWidestVector<T>;
    const auto run = by_class ? (vectorize ? launch_l1_classes<T, kVector> : launch_l1_classes<T, 1>)
                              : (vectorize ? launch_l1_rows<T, kVector> : launch_l1_rows<T, 1>);
    run(arguments<T>(instances, table), grads, labels);
  });
  return {grad_instances, grad_table};
}

MCFA_REGISTER_KERNEL(MCFA_CUDA_LIBRARY, MCFA_CUDA_KEY, L1Forward, l1_forward_cuda)
MCFA_REGISTER_KERNEL(MCFA_CUDA_LIBRARY, MCFA_CUDA_KEY, L1Backward, l1_backward_cuda)

}  // namespace
}  // namespace mcfa_fast
