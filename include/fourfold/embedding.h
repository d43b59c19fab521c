// Tables of vectors looked up by index, alone or reduced in bags, with float32, float16 or int8 weights.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "fourfold/random.h"
#include "fourfold/tensor.h"

namespace fourfold {

namespace detail {
struct EmbeddingTable;
}

struct EmbeddingOptions {
  std::int64_t num_embeddings;
  std::int64_t embedding_dim;
  std::optional<std::int64_t> padding_idx = {};  // negative counts from the end
};

// torch.nn.Embedding, and, once quantized, its counterpart. A value: a copy is independent (the weights never
// change once they are set, so copies share them). Calls on one object from many threads are safe.
class Embedding {
 public:
  // Weights as PyTorch initializes them, drawn in its order; the row of padding_idx is zero. Throws
  // InvalidArgument where a size is not positive or padding_idx is no row.
  explicit Embedding(EmbeddingOptions options, Generator& generator = default_generator());

  // Weights from tensors, as load_state_dict takes them.
  Embedding(EmbeddingOptions options, const StateDict& state);

  // indices: int64 or int32 of any shape, each from 0 to num_embeddings - 1. Returns float32 of that shape
  // and [embedding_dim] after it. Throws InvalidArgument for another dtype, or an index out of range.
  Tensor operator()(const Tensor& indices) const;

  Embedding(const Embedding&) = default;
  Embedding& operator=(const Embedding&) = default;

  const EmbeddingOptions& options() const { return options_; }  // padding_idx counted from the start
  DType dtype() const;                                          // of the weights: float32, float16 or qint8

  // Turns float32 weights into int8, one scale a row, or into float16; others stay. Throws InvalidArgument
  // for a dtype other than qint8 and float16, Error where a weight is not finite or too large for float16;
  // the layer is unchanged then.
  void quantize(DType dtype);

  // weight [num_embeddings, embedding_dim]; an int8 one has weight_scale [num_embeddings].
  StateDict state_dict() const;

  // Throws Error where a tensor is missing, unknown, or of the wrong shape or dtype, and is unchanged then.
  void load_state_dict(const StateDict& state);

  std::string repr() const;  // as PyTorch prints it

  static constexpr const char* kind = "Embedding";

 private:
  EmbeddingOptions options_;
  std::shared_ptr<const detail::EmbeddingTable> table_;
};

enum class EmbeddingBagMode : std::uint8_t { sum, mean, max };

struct EmbeddingBagOptions {
  std::int64_t num_embeddings;
  std::int64_t embedding_dim;
  EmbeddingBagMode mode = EmbeddingBagMode::mean;
  bool include_last_offset = false;  // the last offset is the end of the last bag, and starts none
  std::optional<std::int64_t> padding_idx = {};  // negative counts from the end; left out of every bag
};

// torch.nn.EmbeddingBag, and, once quantized, its counterpart: the sum, mean or largest of each bag's rows,
// element by element. A value, and safe to call from many threads, as Embedding.
class EmbeddingBag {
 public:
  // As Embedding's.
  explicit EmbeddingBag(EmbeddingBagOptions options, Generator& generator = default_generator());
  EmbeddingBag(EmbeddingBagOptions options, const StateDict& state);

  // indices: int64 or int32, [batch, length], where each row is a bag; or [n] with offsets, int64 or int32
  // [bags] ([bags + 1] where they include the last), the bags' first positions: they start at 0 and never
  // fall or pass n. per_sample_weights: float32 of the indices' shape, by which the rows are multiplied, in
  // mode sum only; null where there are none. Returns float32 [bags, embedding_dim]; a bag with nothing in
  // it but padding is zeros. Throws InvalidArgument for anything else.
  Tensor operator()(const Tensor& indices, const Tensor* offsets = nullptr,
                    const Tensor* per_sample_weights = nullptr) const;
  Tensor operator()(const Tensor& indices, const Tensor& offsets) const { return (*this)(indices, &offsets); }

  EmbeddingBag(const EmbeddingBag&) = default;
  EmbeddingBag& operator=(const EmbeddingBag&) = default;

  const EmbeddingBagOptions& options() const { return options_; }  // padding_idx counted from the start

  // As Embedding's.
  DType dtype() const;
  void quantize(DType dtype);
  StateDict state_dict() const;
  void load_state_dict(const StateDict& state);
  std::string repr() const;

  static constexpr const char* kind = "EmbeddingBag";

 private:
  EmbeddingBagOptions options_;
  std::shared_ptr<const detail::EmbeddingTable> table_;
};

}  // namespace fourfold
