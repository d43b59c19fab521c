// The gates of every vector instruction set, written once over the operations of simd.h. scalar.cpp says what
// they are, and gates.h how the exponential is made.
#pragma once

#include "kernels/gates.h"

namespace fourfold::kernels {

template <class S>
struct SimdGates {
  using F = typename S::F;

  static F exponential(F x, const Exponential& e) {
    const F clamped = S::clamp(x, e.limit), round = S::set1(exp_round);
    const F rounded = S::fma(clamped, S::set1(e.log2e), round);
    const F u = S::fma(S::sub(rounded, round), S::set1(e.ln2), clamped);
    const F s = S::exp2_of(rounded);
    return S::fma(S::mul(s, u), S::fma(S::fma(S::set1(e.c3), u, S::set1(e.c2)), u, S::set1(e.c1)), s);
  }

  static F sigmoid_denominator(F x) { return S::add(S::set1(1), exponential(x, exp_minus_x)); }
  static F tanh_over(F x, F d) {
    const F e = exponential(x, exp_minus_2x);
    return S::div(S::sub(S::set1(1), e), S::fma(d, e, d));
  }
  static F sigmoid(F x) { return S::div(S::set1(1), sigmoid_denominator(x)); }
  static F tanh(F x) {
    const F e = exponential(x, exp_minus_2x), one = S::set1(1);
    return S::div(S::sub(one, e), S::add(one, e));
  }

  // The new state in two halves, as each is a long chain: what the second waits for, and h.
  static F lstm_c(F i, F f, F g, F c) {
    const F update = tanh_over(g, sigmoid_denominator(i)), d = sigmoid_denominator(f);
    return S::div(S::fma(update, d, c), d);
  }
  static F lstm_h(F o, F c) { return tanh_over(c, sigmoid_denominator(o)); }

  static F gru_before_tanh(F r, F input_n, F hidden_n) { return S::fma(sigmoid(r), hidden_n, input_n); }
  static F gru_h(F z, F before_tanh, F h) {
    const F n = tanh(before_tanh);
    return S::fma(sigmoid(z), S::sub(h, n), n);
  }
};

// Operations on two vectors at once: the gates of one are a long chain, those of two fill its gaps.
template <class S>
struct Twice {
  struct F {
    typename S::F first, second;
  };
  static F set1(float x) { return {S::set1(x), S::set1(x)}; }
  static F add(F a, F b) { return {S::add(a.first, b.first), S::add(a.second, b.second)}; }
  static F sub(F a, F b) { return {S::sub(a.first, b.first), S::sub(a.second, b.second)}; }
  static F mul(F a, F b) { return {S::mul(a.first, b.first), S::mul(a.second, b.second)}; }
  static F div(F a, F b) { return {S::div(a.first, b.first), S::div(a.second, b.second)}; }
  static F fma(F a, F b, F c) {
    return {S::fma(a.first, b.first, c.first), S::fma(a.second, b.second, c.second)};
  }
  static F clamp(F x, float limit) { return {S::clamp(x.first, limit), S::clamp(x.second, limit)}; }
  static F exp2_of(F x) { return {S::exp2_of(x.first), S::exp2_of(x.second)}; }
};

}  // namespace fourfold::kernels
