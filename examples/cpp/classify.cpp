// Classifies rows of features with a file of `mcfa-fast export --format torchscript`; needs libtorch only.
//
//   classify MODEL FEATURES
//
// FEATURES is a .npy file of float32 [N, F]. Prints one line per row: number, class name, score, separated by tabs.
#include <torch/script.h>

#include <cinttypes>
#include <cstdio>
#include <exception>
#include <string>

#include "npy.h"

namespace {

constexpr uint64_t kRowsPerBatch = 8192;

torch::jit::Module load(const std::string& path) {
  torch::jit::ExtraFilesMap extra{{"mcfa_fast.json", ""}};
  auto model = torch::jit::load(path, torch::kCPU, extra);
  if (extra["mcfa_fast.json"].empty() || !model.hasattr("features") || !model.hasattr("class_names")) {
    throw std::runtime_error(path + ": not a file of mcfa-fast export");
  }
  model.eval();
  return model;
}

void classify(const std::string& model_path, const std::string& features_path) {
  c10::InferenceMode no_gradients;
  auto model = load(model_path);
  const auto names = model.attr("class_names").toList();
  const auto columns = model.attr("features").toInt();
  NpyRows file(features_path);
  if (file.columns() != static_cast<uint64_t>(columns)) {
    throw std::runtime_error(features_path + ": expected " + std::to_string(columns) + " columns, got " +
                             std::to_string(file.columns()));
  }
  for (uint64_t first = 0; first < file.rows(); first += kRowsPerBatch) {
    auto values = file.next(kRowsPerBatch);
    const auto rows = static_cast<int64_t>(values.size()) / columns;
    const auto features = torch::from_blob(values.data(), {rows, columns}, torch::kFloat32);
    if (!features.isfinite().all().item<bool>()) {
      throw std::runtime_error(features_path + ": NaN or infinity in rows " + std::to_string(first) + " to " +
                               std::to_string(first + rows - 1));
    }
    const auto best = model.forward({features}).toTensor().max(/*dim=*/1);
    const auto scores = std::get<0>(best), classes = std::get<1>(best);
    const auto score = scores.accessor<float, 1>();
    const auto index = classes.accessor<int64_t, 1>();
    for (int64_t row = 0; row < rows; ++row) {
      const std::string name = names.get(index[row]).toStringRef();
      std::printf("%" PRIu64 "\t%s\t%.9g\n", first + row, name.c_str(), score[row]);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s MODEL FEATURES\n", argv[0]);
    return 2;
  }
  try {
    classify(argv[1], argv[2]);
  } catch (const std::exception& error) {
    const std::string text = error.what();  // PyTorch adds a backtrace on further lines
    std::fprintf(stderr, "error: %s\n", text.substr(0, text.find('\n')).c_str());
    return 1;
  }
  return 0;
}
