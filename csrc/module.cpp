// The Python extension module mcfa_fast._C. Importing it registers the operators (library.cpp and the
// files of each operator); Python itself only asks how it was built.
#include <pybind11/pybind11.h>
#include <torch/version.h>

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

pybind11::dict build_info() {
  pybind11::dict info;
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
  info["cuda"] = pybind11::none();
#endif
  return info;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled operators of mcfa_fast; see mcfa_fast.functional.";
  m.def("build_info", &build_info, "How the extension was built, and the SIMD level it runs with here.");
}
