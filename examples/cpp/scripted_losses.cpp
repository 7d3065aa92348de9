// Loads a scripted module that uses mcfa_fast's losses, and prints its losses and gradients.
//
//   scripted_losses MODULE INPUTS
//
// MODULE is a file of torch.jit.save; INPUTS a scripted module with the tensors `visual`, `semantic` and `labels`.
#include <torch/script.h>

#include <cstdio>
#include <exception>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s MODULE INPUTS\n", argv[0]);
    return 2;
  }
  try {
    auto losses = torch::jit::load(argv[1]);
    const auto inputs = torch::jit::load(argv[2]);
    const auto visual = inputs.attr("visual").toTensor().requires_grad_();
    const auto semantic = inputs.attr("semantic").toTensor().requires_grad_();
    const auto labels = inputs.attr("labels").toTensor();

    const auto values = losses.forward({visual, semantic, labels}).toTuple()->elements();
    auto total = torch::zeros({}, values[0].toTensor().options());
    const char* names[] = {"vtov", "vtos", "stov"};
    for (size_t i = 0; i < values.size(); ++i) {
      std::printf("%s %.9g\n", names[i], values[i].toTensor().item<double>());
      total = total + values[i].toTensor();
    }
    total.backward();
    std::printf("grad_visual %.9g\n", visual.grad().norm().item<double>());
    std::printf("grad_semantic %.9g\n", semantic.grad().norm().item<double>());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
