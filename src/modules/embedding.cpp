#include "fourfold/embedding.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <span>
#include <vector>

#include "base/float_environment.h"
#include "fourfold/error.h"
#include "layers/embedding.h"
#include "modules/parameters.h"
#include "quant/half_weights.h"
#include "quant/quantize_weights.h"

namespace fourfold {

struct detail::EmbeddingTable {
  modules::PlainWeight rows;

  layers::EmbeddingView view() const {
    const Tensor& weight = rows.weight;
    layers::EmbeddingView view{.columns = weight.size(1)};
    if (weight.dtype() == DType::qint8) {
      view.qint8 = weight.data<std::int8_t>();
      view.scale = rows.scale.data<float>();
    } else if (weight.dtype() == DType::float16) {
      view.float16 = reinterpret_cast<const std::uint16_t*>(weight.bytes().data());
    } else {
      view.float32 = weight.data<float>();
    }
    return view;
  }
};

namespace {

using Table = std::shared_ptr<const detail::EmbeddingTable>;

constexpr std::int64_t largest_size = std::numeric_limits<std::int32_t>::max();

// ---- What Embedding and EmbeddingBag share; `kind` is the one that speaks in messages ----

// With padding_idx counted from the start.
template <class Options>
Options checked(const std::string& kind, Options options) {
  modules::require_size(kind + ": num_embeddings", options.num_embeddings, largest_size);
  modules::require_size(kind + ": embedding_dim", options.embedding_dim, largest_size);
  if (!options.padding_idx) return options;
  const std::int64_t rows = options.num_embeddings, given = *options.padding_idx;
  if (given < -rows || given >= rows)
    throw InvalidArgument(kind + ": padding_idx must be within num_embeddings, from " +
                          std::to_string(-rows) + " to " + std::to_string(rows - 1) + ", got " +
                          std::to_string(given));
  if (given < 0) *options.padding_idx += rows;
  return options;
}

template <class Options>
StateDict initial_state(const std::string& kind, const Options& given, Generator& generator) {
  const Options options = checked(kind, given);
  Tensor weight = randn({options.num_embeddings, options.embedding_dim}, generator);
  if (options.padding_idx)
    std::fill_n(weight.data<float>() + *options.padding_idx * options.embedding_dim, options.embedding_dim,
                0.0f);
  return {{"weight", std::move(weight)}};
}

template <class Options>
Table table_from(const Options& options, const StateDict& state) {
  const base::FloatEnvironment environment;
  modules::ParameterReader reader(state);
  modules::PlainWeight rows = reader.take_plain_weight("weight", static_cast<int>(options.num_embeddings),
                                                       static_cast<int>(options.embedding_dim));
  reader.finish();
  return std::make_shared<const detail::EmbeddingTable>(detail::EmbeddingTable{std::move(rows)});
}

StateDict state_of(const Table& table) {
  StateDict state = {{"weight", table->rows.weight}};
  if (table->rows.weight.dtype() == DType::qint8) state.push_back({"weight_scale", table->rows.scale});
  return state;
}

Table quantized(const std::string& kind, const Table& table, DType dtype) {
  modules::require_quantizable(dtype, kind);
  const Tensor& weight = table->rows.weight;
  if (weight.dtype() != DType::float32) return table;
  const base::FloatEnvironment environment;
  const int rows = static_cast<int>(weight.size(0)), columns = static_cast<int>(weight.size(1));
  const std::span<const float> values(weight.data<float>(), static_cast<std::size_t>(weight.numel()));
  modules::PlainWeight result{Tensor(weight.shape(), dtype), Tensor()};
  if (dtype == DType::float16) {
    const std::vector<std::uint16_t> halves = quant::half_weights(values, columns, "weight");
    std::ranges::copy(std::as_bytes(std::span(halves)), result.weight.bytes().begin());
  } else {
    const quant::QuantizedWeights q = quant::quantize_weights(values, rows, columns, "weight");
    std::ranges::copy(q.q, result.weight.data<std::int8_t>());
    result.scale = Tensor({rows}, q.scale);
  }
  return std::make_shared<const detail::EmbeddingTable>(detail::EmbeddingTable{std::move(result)});
}

// Of a tensor of int64 or int32.
std::vector<std::int64_t> integers(const std::string& what, const Tensor& tensor) {
  const auto count = static_cast<std::size_t>(tensor.numel());
  if (tensor.dtype() == DType::int64) {
    const std::int64_t* values = tensor.data<std::int64_t>();
    return {values, values + count};
  }
  if (tensor.dtype() == DType::int32) {
    std::vector<std::int32_t> values(count);
    if (count > 0) std::memcpy(values.data(), tensor.bytes().data(), tensor.bytes().size());
    return {values.begin(), values.end()};
  }
  throw InvalidArgument(what + " must be int64 or int32, got " + std::string(dtype_name(tensor.dtype())));
}

// "[1, 2]": where element `i` of a tensor of that shape is.
std::string position_text(std::int64_t i, const std::vector<std::int64_t>& shape) {
  std::vector<std::int64_t> position(shape.size());
  for (std::size_t d = shape.size(); d-- > 0; i /= shape[d]) position[d] = i % shape[d];
  return shape_text(position);
}

std::vector<std::int64_t> rows_of(const std::string& kind, const Tensor& indices, std::int64_t rows) {
  std::vector<std::int64_t> values = integers(kind + ": indices", indices);
  for (std::size_t i = 0; i < values.size(); ++i)
    if (values[i] < 0 || values[i] >= rows)
      throw InvalidArgument(kind + ": index " + std::to_string(values[i]) + " at " +
                            position_text(static_cast<std::int64_t>(i), indices.shape()) +
                            " is out of range: from 0 to " + std::to_string(rows - 1));
  return values;
}

// "QuantizedEmbedding(num_embeddings=10, embedding_dim=3, dtype=torch.qint8, …)"; `more` follows the sizes.
template <class Options>
std::string quantized_repr(const std::string& kind, const Options& options, const std::string& more,
                           DType dtype) {
  return "Quantized" + kind + "(num_embeddings=" + std::to_string(options.num_embeddings) +
         ", embedding_dim=" + std::to_string(options.embedding_dim) + more + ", dtype=torch." +
         (dtype == DType::qint8 ? "qint8, qscheme=torch.per_channel_affine)" : "float16)");
}

template <class Options>
std::string float_repr(const std::string& kind, const Options& options, const std::string& more) {
  return kind + "(" + std::to_string(options.num_embeddings) + ", " + std::to_string(options.embedding_dim) +
         more + (options.padding_idx ? ", padding_idx=" + std::to_string(*options.padding_idx) : "") + ")";
}

// ---- Bags ----

std::string mode_name(EmbeddingBagMode mode) {
  switch (mode) {
    case EmbeddingBagMode::sum:
      return "sum";
    case EmbeddingBagMode::mean:
      return "mean";
    case EmbeddingBagMode::max:
      return "max";
  }
  throw InvalidArgument("EmbeddingBag: not a mode: " + std::to_string(static_cast<int>(mode)));
}

EmbeddingBagOptions checked_bag(const EmbeddingBagOptions& options) {
  mode_name(options.mode);
  return checked(EmbeddingBag::kind, options);
}

[[noreturn]] void refuse_bag(const std::string& why) { throw InvalidArgument("EmbeddingBag: " + why); }

// The first position of each bag, and the end of the last.
std::vector<std::int64_t> bag_bounds(const Tensor& indices, const Tensor* offsets, bool include_last) {
  if (indices.dim() == 2) {
    if (offsets != nullptr)
      refuse_bag("indices of shape " + shape_text(indices.shape()) +
                 " are bags of one length each, which take no offsets");
    std::vector<std::int64_t> bounds;
    for (std::int64_t bag = 0; bag <= indices.size(0); ++bag) bounds.push_back(bag * indices.size(1));
    return bounds;
  }
  if (indices.dim() != 1)
    refuse_bag("indices must have 1 or 2 dimensions, got shape " + shape_text(indices.shape()));
  if (offsets == nullptr) refuse_bag("indices of 1 dimension need offsets");
  if (offsets->dim() != 1)
    refuse_bag("offsets must have 1 dimension, got shape " + shape_text(offsets->shape()));

  const std::int64_t length = indices.numel();
  std::vector<std::int64_t> bounds = integers("EmbeddingBag: offsets", *offsets);
  if (include_last && bounds.empty()) refuse_bag("offsets that include the last must hold at least 1");
  std::int64_t former = 0;
  for (std::size_t i = 0; i < bounds.size(); ++i) {
    const std::string text = "offsets[" + std::to_string(i) + "] is " + std::to_string(bounds[i]);
    if (i == 0 && bounds[i] != 0) refuse_bag(text + ": the first bag starts at 0");
    if (bounds[i] < former) refuse_bag(text + ", less than the one before it, " + std::to_string(former));
    if (bounds[i] > length) refuse_bag(text + ", past the end of the indices, " + std::to_string(length));
    former = bounds[i];
  }
  if (!include_last) bounds.push_back(length);
  return bounds;
}

void check_weights(const Tensor& weights, const Tensor& indices, EmbeddingBagMode mode) {
  if (weights.shape() != indices.shape())
    refuse_bag("per_sample_weights must have the shape of the indices, " + shape_text(indices.shape()) +
               ", got " + shape_text(weights.shape()));
  if (mode != EmbeddingBagMode::sum)  // PyTorch's words
    refuse_bag(
        "per_sample_weights was not None. per_sample_weights is only supported for mode='sum' (got mode='" +
        mode_name(mode) + "').");
  if (weights.dtype() != DType::float32)
    refuse_bag("per_sample_weights must be float32, got " + std::string(dtype_name(weights.dtype())));
}

}  // namespace

// ---- Embedding ----

Embedding::Embedding(EmbeddingOptions options, Generator& generator)
    : Embedding(options, initial_state(kind, options, generator)) {}

Embedding::Embedding(EmbeddingOptions options, const StateDict& state) : options_(checked(kind, options)) {
  load_state_dict(state);
}

Tensor Embedding::operator()(const Tensor& indices) const {
  const std::vector<std::int64_t> rows = rows_of(kind, indices, options_.num_embeddings);
  std::vector<std::int64_t> shape = indices.shape();
  shape.push_back(options_.embedding_dim);
  Tensor output(std::move(shape));
  const base::FloatEnvironment environment;
  layers::embedding_forward(table_->view(), rows, output.data<float>());
  return output;
}

DType Embedding::dtype() const { return table_->rows.weight.dtype(); }

void Embedding::quantize(DType dtype) { table_ = quantized(kind, table_, dtype); }

StateDict Embedding::state_dict() const { return state_of(table_); }

void Embedding::load_state_dict(const StateDict& state) { table_ = table_from(options_, state); }

std::string Embedding::repr() const {
  if (dtype() != DType::float32) return quantized_repr(kind, options_, "", dtype());
  return float_repr(kind, options_, "");
}

// ---- EmbeddingBag ----

EmbeddingBag::EmbeddingBag(EmbeddingBagOptions options, Generator& generator)
    : EmbeddingBag(options, initial_state(kind, checked_bag(options), generator)) {}

EmbeddingBag::EmbeddingBag(EmbeddingBagOptions options, const StateDict& state)
    : options_(checked_bag(options)) {
  load_state_dict(state);
}

Tensor EmbeddingBag::operator()(const Tensor& indices, const Tensor* offsets,
                                const Tensor* per_sample_weights) const {
  if (per_sample_weights != nullptr) check_weights(*per_sample_weights, indices, options_.mode);
  const std::vector<std::int64_t> bounds = bag_bounds(indices, offsets, options_.include_last_offset);
  const std::vector<std::int64_t> rows = rows_of(kind, indices, options_.num_embeddings);
  Tensor output({static_cast<std::int64_t>(bounds.size()) - 1, options_.embedding_dim});
  const base::FloatEnvironment environment;
  layers::embedding_bag_forward(
      table_->view(),
      {.indices = rows,
       .bounds = bounds,
       .weights = per_sample_weights != nullptr ? per_sample_weights->data<float>() : nullptr,
       .padding_idx = options_.padding_idx.value_or(-1),
       .mode = options_.mode},
      output.data<float>());
  return output;
}

DType EmbeddingBag::dtype() const { return table_->rows.weight.dtype(); }

void EmbeddingBag::quantize(DType dtype) { table_ = quantized(kind, table_, dtype); }

StateDict EmbeddingBag::state_dict() const { return state_of(table_); }

void EmbeddingBag::load_state_dict(const StateDict& state) { table_ = table_from(options_, state); }

std::string EmbeddingBag::repr() const {
  const std::string mode = ", mode='" + mode_name(options_.mode) + "'";
  if (dtype() != DType::float32) return quantized_repr(kind, options_, mode, dtype());
  return float_repr(kind, options_, mode);
}

}  // namespace fourfold
