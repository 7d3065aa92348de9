// All device kernels of the contrastive losses. None of these files includes PyTorch.
#pragma once

#include "../../common/labels.cuh"
#include "chunks.cuh"
#include "finish.cuh"
#include "hopper_backward.cuh"
#include "mma_backward.cuh"
#include "mma_forward.cuh"
#include "mma_symmetric.cuh"
#include "rows.cuh"
#include "simt.cuh"
