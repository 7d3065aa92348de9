// The Python extension module mcfa_fast._C. Importing it registers the operators (op.cpp of each of them), which Python
// calls through torch.ops; bound here are how it was built and the training loops.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/version.h>

#include "mcfa_step/step.h"
#include "softmax_classifier/training.h"

namespace py = pybind11;

namespace {

const char* simd_level() {
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512vl") ? "AVX-512 (x86-64-v4)"
      : __builtin_cpu_supports("avx2")     ? "AVX2 (x86-64-v3)"
                                             : "baseline (x86-64)";
#else
  return "compiler default";
#endif
}

py::dict build_info() {
  py::dict info;
  info["torch"] = TORCH_VERSION;
#ifdef __clang__
  info["compiler"] = __VERSION__;
#else
  info["compiler"] = "GCC " __VERSION__;
#endif
  info["simd"] = simd_level();
#ifdef _OPENMP
  info["openmp"] = true;
#else
  info["openmp"] = false;
#endif
#ifdef MCFA_CUDA_VERSION
  info["cuda"] = MCFA_CUDA_VERSION;
  info["cuda_architectures"] = MCFA_CUDA_ARCHITECTURES;
#else
  info["cuda"] = py::none();
#endif
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled operators of mcfa_fast; see mcfa_fast.functional.";
  using mcfa_fast::MCFALossWeights;
  using mcfa_fast::MCFAStep;
  py::class_<MCFALossWeights>(m, "LossWeights", "What each term counts in the total.")
      .def(
          py::init<double, double, double, double, double, double, double>(), py::kw_only(),
          py::arg("reconstruction"), py::arg("kl"), py::arg("cross_reconstruction"), py::arg("alignment"), py::arg("vtov"), py::arg("vtos"), py::arg("stov"));
  py::class_<MCFAStep>(m, "TrainingStep", "One training step of MCFA on the CPU; see mcfa_fast.training.step.")
      .def(
          py::init([](const std::vector<at::Tensor>& parameters, double temperature, const std::string& positives,
                      double scale_power, bool noise_per_row, bool count_instances) {
            return MCFAStep(
                parameters,
                {temperature, mcfa_fast::parse_positives(positives), scale_power, noise_per_row, count_instances});
          }),
          py::arg("parameters"), py::kw_only(), py::arg("temperature"), py::arg("positives"), py::arg("scale_power"),
          py::arg("noise_per_row"), py::arg("count_instances"))
      .def("run", torch::wrap_pybind_function_no_gil(&MCFAStep::run));
  using mcfa_fast::SoftmaxTraining;
  py::class_<SoftmaxTraining>(m, "SoftmaxTraining", "Training of a linear softmax classifier by Adam.")
      .def(
          py::init<const at::Tensor&, const at::Tensor&, double, double, double>(), py::arg("weight"), py::arg("bias"),
          py::kw_only(), py::arg("learning_rate"), py::arg("beta1"), py::arg("beta2"))
      .def("epoch", torch::wrap_pybind_function_no_gil(&SoftmaxTraining::epoch));
  m.def("build_info", &build_info, "How the extension was built, and the SIMD level it runs with here.");
}
