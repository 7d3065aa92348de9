#include "checks.h"

#include <c10/core/ScalarType.h>

namespace mcfa_fast {

Reduction parse_reduction(std::string_view reduction) {
  if (reduction == "sum") {
    return Reduction::kSum;
  }
  if (reduction == "mean") {
    return Reduction::kMean;
  }
  TORCH_CHECK_VALUE(reduction == "none", "expected `reduction` to be 'sum', 'mean' or 'none', but got '", reduction, "'");
  return Reduction::kNone;
}

std::string_view name_of(Reduction reduction) {
  return reduction == Reduction::kSum ? "sum" : reduction == Reduction::kMean ? "mean" : "none";
}

void check_matrix(const at::Tensor& tensor, const char* name, const char* shape) {
  TORCH_CHECK_VALUE(
      tensor.dim() == 2, "expected `", name, "` to have shape ", shape, ", but got ", tensor.dim(),
      " dimension(s): ", tensor.sym_sizes());
}

void check_floating(const at::Tensor& tensor, const char* name) {
  const auto type = tensor.scalar_type();
  TORCH_CHECK_TYPE(
      type == at::kFloat || type == at::kDouble || type == at::kHalf || type == at::kBFloat16, "expected `", name,
      "` to be float32, float64, float16 or bfloat16, but got ", type);
}

void check_integral(const at::Tensor& tensor, const char* name) {
  const auto type = tensor.scalar_type();
  TORCH_CHECK_TYPE(
      at::isIntegralType(type, /*includeBool=*/false) && type != at::kUInt64, "expected `", name,
      "` to have an integer dtype that int64 can hold, but got ", type);
}

void check_same_dtype(const at::Tensor& tensor, const char* name, const at::Tensor& other, const char* other_name) {
  TORCH_CHECK_TYPE(
      tensor.scalar_type() == other.scalar_type(), "expected `", name, "` to have the dtype of `", other_name, "` (",
      other.scalar_type(), "), but got ", tensor.scalar_type());
}

void check_same_device(const at::Tensor& tensor, const char* name, const at::Tensor& other, const char* other_name) {
  TORCH_CHECK_VALUE(
      tensor.device() == other.device(), "expected `", name, "` on the device of `", other_name, "` (", other.device(),
      "), but got ", tensor.device());
}

void check_same_shape(const at::Tensor& tensor, const char* name, const at::Tensor& other, const char* other_name) {
  TORCH_CHECK_VALUE(
      tensor.sym_sizes() == other.sym_sizes(), "expected `", name, "` to have the shape of `", other_name, "`, ",
      other.sym_sizes(), ", but got ", tensor.sym_sizes());
}

namespace {

void check_vector(const at::Tensor& tensor, const char* name, const at::Tensor& rows_of, const char* rows_of_name) {
  TORCH_CHECK_VALUE(
      tensor.dim() == 1 && tensor.sym_size(0) == rows_of.sym_size(0), "expected `", name, "` to have shape [",
      rows_of.sym_size(0), "], a number for each row of `", rows_of_name, "`, but got ", tensor.sym_sizes());
}

}  // namespace

void check_per_row(const at::Tensor& tensor, const char* name, const at::Tensor& rows_of, const char* rows_of_name) {
  const auto type = accumulation_type(rows_of.scalar_type());
  TORCH_CHECK_TYPE(
      tensor.scalar_type() == type, "expected `", name, "` to be ", type, ", in which sums over `", rows_of_name,
      "` are accumulated, but got ", tensor.scalar_type());
  check_same_device(tensor, name, rows_of, rows_of_name);
  check_vector(tensor, name, rows_of, rows_of_name);
}

void check_loss_grad(
    const at::Tensor& grad, const char* name, Reduction reduction, const at::Tensor& rows_of,
    const char* rows_of_name) {
  check_floating(grad, name);
  check_same_device(grad, name, rows_of, rows_of_name);
  if (reduction == Reduction::kNone) {
    check_vector(grad, name, rows_of, rows_of_name);
  } else {
    TORCH_CHECK_VALUE(
        grad.dim() == 0, "expected `", name, "` to have no dimensions for reduction '", name_of(reduction), "', but got ",
        grad.sym_sizes());
  }
}

void check_labels(const at::Tensor& labels, const at::Tensor& rows_of, const char* rows_of_name, const char* name) {
  check_integral(labels, name);
  check_same_device(labels, name, rows_of, rows_of_name);
  TORCH_CHECK_VALUE(
      labels.dim() == 1 && labels.sym_size(0) == rows_of.sym_size(0), "expected `", name, "` to have shape [N] = [",
      rows_of.sym_size(0), "], one label for each row of `", rows_of_name, "`, but got ", labels.sym_sizes());
}

void throw_label_out_of_range(int64_t label, int64_t index, int64_t classes) {
  TORCH_CHECK_VALUE(
      false, "expected every entry of `labels` to be a class in [0, ", classes, "), but got ", label, " at index ", index);
}

at::ScalarType accumulation_type(at::ScalarType type) {
  return type == at::kDouble ? at::kDouble : at::kFloat;
}

void throw_double_backward(const char* function) {
  TORCH_CHECK_NOT_IMPLEMENTED(
      false, function, ": the gradient is not itself differentiable, so a second derivative cannot be taken. For higher "
      "derivatives on small batches use the same function of mcfa_fast.reference.");
}

}  // namespace mcfa_fast
