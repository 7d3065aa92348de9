// Argument checks shared by the operators. Every message names the argument, what was expected and
// what came; shapes become ValueError in Python, dtypes TypeError.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <string_view>

namespace mcfa_fast {

enum class Reduction { kNone, kMean, kSum };

Reduction parse_reduction(std::string_view reduction);
std::string_view name_of(Reduction reduction);

void check_matrix(const at::Tensor& tensor, const char* name, const char* shape);
void check_floating(const at::Tensor& tensor, const char* name);
void check_integral(const at::Tensor& tensor, const char* name);
void check_same_dtype(const at::Tensor& tensor, const char* name, const at::Tensor& other, const char* other_name);
void check_same_device(const at::Tensor& tensor, const char* name, const at::Tensor& other, const char* other_name);

void check_same_shape(const at::Tensor& tensor, const char* name, const at::Tensor& other, const char* other_name);

// A number for each row of the matrix `rows_of`, in the dtype that sums over it are accumulated in.
void check_per_row(const at::Tensor& tensor, const char* name, const at::Tensor& rows_of, const char* rows_of_name);

// The gradient of a loss with a term for each row of the matrix `rows_of`.
void check_loss_grad(
    const at::Tensor& grad, const char* name, Reduction reduction, const at::Tensor& rows_of,
    const char* rows_of_name);

// Labels, or other integers, of shape [N], N being the rows of `rows_of`.
void check_labels(
    const at::Tensor& labels, const at::Tensor& rows_of, const char* rows_of_name, const char* name = "labels");

// Raises the error for labels[index] = label outside [0, classes).
[[noreturn]] void throw_label_out_of_range(int64_t label, int64_t index, int64_t classes);

// The dtype that sums are accumulated and returned in: float64 for float64, else float32.
at::ScalarType accumulation_type(at::ScalarType type);

// Backward formulas are not differentiable themselves; called when someone tries.
[[noreturn]] void throw_double_backward(const char* function);

}  // namespace mcfa_fast
