// The options of every kind of layer by PyTorch's names: what a file says of a layer. A new kind joins here.
#pragma once

#include "fourfold/module.h"

namespace fourfold::modules {

// Calls visit(name, value) for each option, in PyTorch's order.
template <class Visit>
void for_each_option(LinearOptions& o, const Visit& visit) {
  visit("in_features", o.in_features), visit("out_features", o.out_features), visit("bias", o.bias);
}
template <class Visit>
void for_each_option(LstmOptions& o, const Visit& visit) {
  visit("input_size", o.input_size), visit("hidden_size", o.hidden_size), visit("num_layers", o.num_layers);
  visit("bias", o.bias), visit("batch_first", o.batch_first), visit("dropout", o.dropout);
  visit("bidirectional", o.bidirectional), visit("proj_size", o.proj_size);
}
template <class Visit>
void for_each_option(GruOptions& o, const Visit& visit) {
  visit("input_size", o.input_size), visit("hidden_size", o.hidden_size), visit("num_layers", o.num_layers);
  visit("bias", o.bias), visit("batch_first", o.batch_first), visit("dropout", o.dropout);
  visit("bidirectional", o.bidirectional);
}
template <class Visit>
void for_each_option(RnnOptions& o, const Visit& visit) {
  visit("input_size", o.input_size), visit("hidden_size", o.hidden_size), visit("num_layers", o.num_layers);
  visit("nonlinearity", o.nonlinearity), visit("bias", o.bias), visit("batch_first", o.batch_first);
  visit("dropout", o.dropout), visit("bidirectional", o.bidirectional);
}
template <class Visit>
void for_each_option(LstmCellOptions& o, const Visit& visit) {
  visit("input_size", o.input_size), visit("hidden_size", o.hidden_size), visit("bias", o.bias);
}
template <class Visit>
void for_each_option(GruCellOptions& o, const Visit& visit) {
  visit("input_size", o.input_size), visit("hidden_size", o.hidden_size), visit("bias", o.bias);
}
template <class Visit>
void for_each_option(RnnCellOptions& o, const Visit& visit) {
  visit("input_size", o.input_size), visit("hidden_size", o.hidden_size), visit("bias", o.bias);
  visit("nonlinearity", o.nonlinearity);
}
template <class Visit>
void for_each_option(EmbeddingOptions& o, const Visit& visit) {
  visit("num_embeddings", o.num_embeddings), visit("embedding_dim", o.embedding_dim);
  visit("padding_idx", o.padding_idx);
}
template <class Visit>
void for_each_option(EmbeddingBagOptions& o, const Visit& visit) {
  visit("num_embeddings", o.num_embeddings), visit("embedding_dim", o.embedding_dim), visit("mode", o.mode);
  visit("include_last_offset", o.include_last_offset), visit("padding_idx", o.padding_idx);
}
template <class Visit>
void for_each_option(LogSoftmax& o, const Visit& visit) {
  visit("dim", o.dim);
}
template <class Visit>
void for_each_option(Dropout& o, const Visit& visit) {
  visit("p", o.p);
}

// Throws InvalidArgument for options that a layer without weights cannot have.
template <class Layer>
void require_valid(const Layer&) {}
void require_valid(const Dropout& layer);

// A layer with weights has options() and is made of them and its tensors; others are their own options.
template <class Layer>
inline constexpr bool has_weights = requires(const Layer& layer) {
  layer.state_dict();
};

template <class Layer>
struct OptionsOf {
  using type = Layer;
};
template <class Layer>
requires has_weights<Layer>
struct OptionsOf<Layer> {
  using type = std::remove_cvref_t<decltype(std::declval<const Layer&>().options())>;
};

}  // namespace fourfold::modules
