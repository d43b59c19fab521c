// All of fourfold: dynamic INT8 quantization for recurrent and linear networks on CPUs.
#pragma once

#include "fourfold/activations.h"       // IWYU pragma: export
#include "fourfold/embedding.h"         // IWYU pragma: export
#include "fourfold/error.h"             // IWYU pragma: export
#include "fourfold/gru.h"               // IWYU pragma: export
#include "fourfold/isa.h"               // IWYU pragma: export
#include "fourfold/linear.h"            // IWYU pragma: export
#include "fourfold/lstm.h"              // IWYU pragma: export
#include "fourfold/module.h"            // IWYU pragma: export
#include "fourfold/quantize_dynamic.h"  // IWYU pragma: export
#include "fourfold/random.h"            // IWYU pragma: export
#include "fourfold/recurrent.h"         // IWYU pragma: export
#include "fourfold/rnn.h"               // IWYU pragma: export
#include "fourfold/tensor.h"            // IWYU pragma: export
#include "fourfold/threads.h"           // IWYU pragma: export
