// The kernels of every vector instruction set, written once over vectors of sixteen lanes. An ISA file
// defines a struct `S` of operations, in an anonymous namespace so that nothing made from these templates is
// visible to the linker, and puts simd_table<S>(...) into its table. What each kernel computes is said in
// kernels.h, and by scalar.cpp, whose bits they repeat.
//
// clang-format off
// S has:
//   F, I, A, W               16 floats; 16 int32; 4 activations, broadcast; a line of 64 weights
//   A4                       16 activations, broadcast; with side_products
//   activation_offset        what its quantized activations are shifted by: 0 or 128
//   tile_rows                rows of activations whose sums are held in registers together, at most 6
//   side_products            see KernelTable; its registers must hold the sums of a panel and of a SideTile,
//                            and those of four panels
//   sum_streams              1, or 2 to sum even and odd groups apart where one row is bound by latency; in a
//                            step with side_products see panels_in_turn
//   load, store              unaligned; load_first, store_first: the first n lanes, 0 < n < 16, zero for others
//   load_half                16 halves, exactly
//   set1, add, sub, mul, div, fma(a, b, c) = a*b + c
//   clamp(x, limit)          to [-limit, limit]; NaN stays NaN
//   relu(x)                  x < 0 ? 0 : x
//   max_signed, max_unsigned of two I; highest_signed, highest_unsigned: the largest lane, as the float of its
//                            bits
//   zero_int, load_int, set1_int, add_int, mul_int, to_float; bits(F), the same bits as I
//   round_to_byte(F, I zp)   bytes of clamp(rne(x) + zp, offset - 127, offset + 127), to 16 bytes at p; offset
//                            is activation_offset, and in zp
//   fill_byte(p)             sixteen times the byte that stands for 0
//   exp2_of(F)               2^(n/8) from the bits of a float whose low bits hold n; see gates.h
//   broadcast(q)             A of 4 bytes
//   broadcast_four(q)        A4 of 16 bytes; of_four(that, i) is broadcast(q + 4 * i)
//   load_weights(p)          W, aligned
//   dot(I& sum, W, A)        adds the products
//   dot_line(I& sum, p, A)   the same with the line at p; where sum_streams is 2 or side_products
//   make_now(F)              is computed before what follows in the program; where tile_rows is at least 4
//   negatives_apart          dot leaves out, and negatives(q, groups) is, the sum of the magnitudes of a row's
//                            negative activations; not with side_products or two sum_streams
// clang-format on
#pragma once

#include <type_traits>

#include "kernels/kernels.h"
#include "kernels/simd_gates.h"

namespace fourfold::kernels {

template <class S>
struct SimdKernels {
  using F = typename S::F;
  using I = typename S::I;

  static constexpr float smallest_normal = 0x1p-126f, largest_float = 0x1.fffffep127f;
  static constexpr std::int32_t bits_of_minus_zero = __builtin_bit_cast(std::int32_t, -0.0f);
  static_assert(!S::negatives_apart || (S::sum_streams == 1 && !S::side_products));

  // What decides how a row is quantized: 0, or what lies farthest on either side of it. As integers, the bits
  // of floats above 0 stand in the floats' order, above those of all others; as unsigned ones, the bits of
  // floats below 0 stand in the opposite order, above those of all others. In both an infinity is above every
  // finite number, and NaN above that. Any unit for integers compares them, only some compare floats.
  struct Range {
    I hi = S::zero_int(), lo = S::set1_int(bits_of_minus_zero);
    void look(F x) { join(S::bits(x), S::bits(x)); }
    void join(const Range& other) { join(other.hi, other.lo); }
    void join(I high, I low) {
      hi = S::max_signed(hi, high);
      lo = S::max_unsigned(lo, low);
    }
  };
  struct Rounding {
    bool all_zero;
    F by;
    I zero_point;  // and activation_offset
    void put(F x, std::uint8_t* q) const {
      if (all_zero)
        S::fill_byte(q);
      else
        S::round_to_byte(S::mul(x, by), zero_point, q);
    }
  };
  static Rounding rounding_of(const Range& range, RowQuantization& quantization) {
    const float low = S::highest_unsigned(range.lo), high = S::highest_signed(range.hi);
    const float scale = high / 254.0f - low / 254.0f;
    const bool is_finite = scale <= largest_float;
    if (!is_finite || scale < smallest_normal) {
      quantization = {is_finite ? 0.0f : __builtin_nanf(""), 0};
      return {true, S::set1(0), S::zero_int()};
    }
    const float inverse = 1.0f / scale;
    // A sum this large has no bits below one, so it is rounded, and its low bits are the integer. To convert
    // it would take longer, and so would the way through an integer register, which the row's bytes are not
    // to wait for.
    constexpr float shift = 0x1.8p23f;
    constexpr std::int32_t shift_bits = __builtin_bit_cast(std::int32_t, shift);
    const float shifted = -127.0f - low * inverse + shift;
    quantization = {scale, __builtin_bit_cast(std::int32_t, shifted) - shift_bits};
    return {false, S::set1(inverse),
            S::add_int(S::bits(S::set1(shifted)), S::set1_int(S::activation_offset - shift_bits))};
  }

  static Rounding look_at_row(const float* x, int inputs, RowQuantization& quantization) {
    const int whole = inputs / 16 * 16, rest = inputs - whole;
    Range range, odd;
    int k = 0;
    for (; k + 32 <= whole; k += 32) {
      range.look(S::load(x + k));
      odd.look(S::load(x + k + 16));
    }
    if (k < whole) range.look(S::load(x + k));
    if (rest > 0) odd.look(S::load_first(x + whole, rest));
    range.join(odd);
    return rounding_of(range, quantization);
  }
  static void round_row(const float* x, int inputs, const Rounding& rounding, std::uint8_t* q) {
    const int whole = inputs / 16 * 16, rest = inputs - whole;
    for (int k = 0; k < whole; k += 16) rounding.put(S::load(x + k), q + k);
    if (rest > 0) rounding.put(S::load_first(x + whole, rest), q + whole);
  }

  // What decides a row's rounding is a chain of two divisions: that of two rows at once, and meanwhile the
  // two before them are rounded.
  __attribute__((flatten)) static void quantize_rows(const QuantizeArgs& a) {
    const auto look = [&](int r) { return look_at_row(a.x + r * a.x_stride, a.inputs, a.quantization[r]); };
    const auto round = [&](int r, const Rounding& rounding) {
      round_row(a.x + r * a.x_stride, a.inputs, rounding, a.q + r * a.q_stride);
    };
    int r = a.rows % 2;
    if (r == 1) round(0, look(0));
    if (a.rows < 2) return;
    Rounding first = look(r), second = look(r + 1);
    for (r += 2; r < a.rows; r += 2) {
      const Rounding next_first = look(r), next_second = look(r + 1);
      round(r - 2, first);
      round(r - 1, second);
      first = next_first;
      second = next_second;
    }
    round(r - 2, first);
    round(r - 1, second);
  }

  // The 16 values that row m, block b of a panel's product is added to.
  struct Addend {
    const float* first;
    std::ptrdiff_t row_stride;
    F operator()(int m, int b) const { return S::load(first + m * row_stride + b * block_rows); }
  };
  // The gates of a GRU: the last one's input part is added later, behind the reset gate.
  struct GruAddend {
    const float* pre;
    std::ptrdiff_t row_stride;
    const float* hidden_bias;
    F operator()(int m, int b) const {
      return S::load(b == 2 ? hidden_bias : pre + m * row_stride + b * block_rows);
    }
  };

  static constexpr std::ptrdiff_t line = block_rows * input_group;  // bytes of a block for a group of inputs
  static int groups_of(const MatrixView& w) { return (w.inputs + input_group - 1) / input_group; }
  static const std::int8_t* panel_weights(const MatrixView& w, int panel) {
    return static_cast<const std::int8_t*>(w.weights) +
           static_cast<std::ptrdiff_t>(panel) * groups_of(w) * w.panel_rows() * input_group;
  }

  // y[m][b] = the product of rows r + m with block b of a panel, back in float, plus addend(m, b).
  struct Qint8 {
    // What a sum starts from: less the zero point times the sum of a row's weights.
    static I start(const RowQuantization& by, const std::int32_t* row_sum) {
      return S::mul_int(S::set1_int(-by.zero_point - S::activation_offset), S::load_int(row_sum));
    }

    template <int MR, int NB>
    [[gnu::always_inline]] static void start_rows(I (&sums)[MR][NB], const RowQuantization* by,
                                                  const std::int32_t* row_sum) {
#pragma GCC unroll 6
      for (int m = 0; m < MR; ++m)
#pragma GCC unroll 4
        for (int b = 0; b < NB; ++b) sums[m][b] = start(by[m], row_sum + b * block_rows);
    }

    template <int MR, int NB>
    static void sum(I (&sums)[MR][NB], const std::uint8_t* q, std::ptrdiff_t stride,
                    const RowQuantization* by, const std::int8_t* w, const std::int32_t* row_sum,
                    int groups) {
      start_rows(sums, by, row_sum);
      if constexpr (S::negatives_apart) {  // added behind the loop, they make GCC 12 spill the sums
#pragma GCC unroll 6
        for (int m = 0; m < MR; ++m) {
          const I negatives = S::negatives(q + m * stride, groups);
#pragma GCC unroll 4
          for (int b = 0; b < NB; ++b) sums[m][b] = S::add_int(sums[m][b], negatives);
        }
      }
      dot_groups(sums, q, stride, w, 0, groups);
    }

    // Adds the products of groups [begin, end) of inputs.
    template <int MR, int NB>
    [[gnu::always_inline]] static void dot_groups(I (&sums)[MR][NB], const std::uint8_t* q,
                                                  std::ptrdiff_t stride, const std::int8_t* w, int begin,
                                                  int end) {
      const auto dot_one = [&](int g) __attribute__((always_inline)) {
        typename S::W weights[NB];
#pragma GCC unroll 4
        for (int b = 0; b < NB; ++b) weights[b] = S::load_weights(w + (g * std::ptrdiff_t{NB} + b) * line);
#pragma GCC unroll 6
        for (int m = 0; m < MR; ++m) {
          const typename S::A a = S::broadcast(q + m * stride + std::ptrdiff_t{g} * input_group);
#pragma GCC unroll 4
          for (int b = 0; b < NB; ++b) S::dot(sums[m][b], weights[b], a);
        }
      };
      int g = begin;
      // One group at a time, two or three rows take up to a third longer; with more of them, GCC 12 then
      // spills the sums.
      if constexpr (MR == 2 || MR == 3)
        for (; g + 4 <= end; g += 4)
#pragma GCC unroll 4
          for (int i = 0; i < 4; ++i) dot_one(g + i);
      for (; g < end; ++g) dot_one(g);
    }

    template <bool far = false, int MR, int NB, class Addends>
    static void product(F (&y)[MR][NB], const MatrixView& w, const Rows& rows, int r, int panel,
                        const Addends& addend) {
      const int groups = groups_of(w);
      const std::int8_t* weights = panel_weights(w, panel);
      const std::uint8_t* q = rows.q + r * rows.stride;
      const std::int32_t* row_sum = w.row_sum + static_cast<std::ptrdiff_t>(panel) * w.panel_rows();
      I sums[MR][NB];
      if constexpr (MR == 1 && S::sum_streams == 2) {
        sum_one_row<2, far>(sums, q, rows.quantization[r], weights, row_sum, groups);
      } else {
        sum(sums, q, rows.stride, rows.quantization + r, weights, row_sum, groups);
      }
      to_float(y, sums, w, rows, r, panel, addend);
    }

    // Sums of a panel's products, back in float.
    template <int MR, int NB, class Addends>
    static void to_float(F (&y)[MR][NB], const I (&sums)[MR][NB], const MatrixView& w, const Rows& rows,
                         int r, int panel, const Addends& addend) {
      const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(panel) * w.panel_rows();
#pragma GCC unroll 6
      for (int m = 0; m < MR; ++m) {
        const F scale = S::set1(rows.quantization[r + m].scale);
#pragma GCC unroll 4
        for (int b = 0; b < NB; ++b)
          y[m][b] = S::fma(S::to_float(sums[m][b]), S::mul(scale, S::load(w.scale + first + b * block_rows)),
                           addend(m, b));
      }
    }

    // Most often one row has too few sums in flight to hide the latency of the instruction: with two streams,
    // odd groups have sums of their own, added at the end. From `far` away lines arrive sooner when they are
    // asked for before they are needed.
    template <int streams, bool far, int NB>
    static void sum_one_row(I (&sums)[1][NB], const std::uint8_t* q, const RowQuantization& by,
                            const std::int8_t* w, const std::int32_t* row_sum, int groups) {
      I odd[NB];
#pragma GCC unroll 4
      for (int b = 0; b < NB; ++b) {
        sums[0][b] = start(by, row_sum + b * block_rows);
        odd[b] = S::zero_int();
      }
      const auto dot = [&](I(&to)[NB]) __attribute__((always_inline)) {
        constexpr std::ptrdiff_t far_ahead = 4 << 10;  // bytes
        if constexpr (far)  // an address, not a pointer: the last are behind the end
#pragma GCC unroll 4
          for (int b = 0; b < NB; ++b)
            __builtin_prefetch(reinterpret_cast<const void*>(
                reinterpret_cast<std::uintptr_t>(w) + static_cast<std::uintptr_t>(far_ahead + b * line)));
        dot_group(to, w, S::broadcast(q));
        w += NB * line;
        q += input_group;
      };
      int g = groups;
      for (; g >= 2; g -= 2) {
        dot(sums[0]);
        dot(streams == 2 ? odd : sums[0]);
      }
      if (g > 0) dot(sums[0]);
      if constexpr (streams == 2)
#pragma GCC unroll 4
        for (int b = 0; b < NB; ++b) sums[0][b] = S::add_int(sums[0][b], odd[b]);
    }
  };

  // ---- A step of one row ----

  // What a panel's sums start from.
  template <int gates>
  static void start_panel(const StepArgs& a, int panel, I (&sums)[gates]) {
#pragma GCC unroll 4
    for (int b = 0; b < gates; ++b)
      sums[b] = Qint8::start(*a.rows.quantization,
                             a.weights.row_sum + (std::ptrdiff_t{panel} * gates + b) * block_rows);
  }
  // Adds the products of the group of inputs at q with the panel's lines at w.
  template <int gates>
  static void dot_group(I (&sums)[gates], const std::int8_t* w, typename S::A q) {
#pragma GCC unroll 4
    for (int b = 0; b < gates; ++b) S::dot_line(sums[b], w + b * line, q);
  }
  // The new state of `panels` panels from their sums; finish.operator()<panels>(places, gates, range) makes
  // it.
  template <int panels, int gates, class Addends, class Finish>
  static void finish_panels(const StepArgs& a, const int (&at)[panels], const I (*sums)[1][gates],
                            const Addends& addend_of, const Finish& finish, Range& range) {
    F y[panels][gates];
    Place places[panels];
#pragma GCC unroll 4
    for (int p = 0; p < panels; ++p) {
      places[p] = {at[p], 0};
      F row[1][gates];
      Qint8::to_float(row, sums[p], a.weights, a.rows, 0, at[p], addend_of(at[p], 0));
#pragma GCC unroll 4
      for (int g = 0; g < gates; ++g) y[p][g] = row[0][g];
    }
    finish.template operator()<panels>(places, y, range);
  }

  // Up to 64 KiB, of which the first cache holds most, weights arrive about as fast as they are multiplied,
  // and what counts is how much there is to do besides: two or four panels at a time share an activation, and
  // the gates of one fill the gaps of the others'. Farther away one panel after the other is faster, a single
  // stream.
  static constexpr std::ptrdiff_t near_bytes = 64 << 10;
  static bool weights_are_near(const StepArgs& a) {
    const std::ptrdiff_t panels = a.panel_end - a.panel_begin;
    return a.rows.count == 1 && panels * a.weights.panel_rows() * a.weights.inputs <= near_bytes;
  }

  template <int gates, class Addends, class Finish>
  static void panels_together(const StepArgs& a, const Addends& addend_of, const Finish& finish,
                              Range& range) {
    const int groups = groups_of(a.weights);
    const auto run = [&]<int panels>(const int(&at)[panels]) __attribute__((always_inline)) {
      I sums[panels][1][gates];
#pragma GCC unroll 4
      for (int p = 0; p < panels; ++p) start_panel(a, at[p], sums[p][0]);
      const std::int8_t* w = panel_weights(a.weights, at[0]);
      for (int g = 0; g < groups; ++g) {
        const typename S::A q = S::broadcast(a.rows.q + std::ptrdiff_t{g} * input_group);
#pragma GCC unroll 4
        for (int p = 0; p < panels; ++p)
          dot_group(sums[p][0], w + (std::ptrdiff_t{p} * groups + g) * gates * line, q);
      }
      finish_panels<panels>(a, at, sums, addend_of, finish, range);
    };
    // Beyond 16 groups of inputs the gates of two pairs of an LSTM already take each other's gaps.
    const bool by_four = gates < 4 || groups <= 16;
    const int count = a.panel_end - a.panel_begin;
    int i = 0;
    const auto first = [&](int panels) { return a.backward ? a.panel_end - panels - i : a.panel_begin + i; };
    for (; by_four && i + 4 <= count; i += 4)
      run.template operator()<4>({first(4), first(4) + 1, first(4) + 2, first(4) + 3});
    for (; i + 2 <= count; i += 2) run.template operator()<2>({first(2), first(2) + 1});
    if (count % 2 == 1) run.template operator()<1>({a.backward ? a.panel_begin : a.panel_end - 1});
  }

  // One panel after the other, of weights that come from far. There four gates are sums enough to hide the
  // latency of the instruction; three are not.
  template <int gates, class Addends, class Finish>
  static void panels_in_turn(const StepArgs& a, const Addends& addend_of, const Finish& finish,
                             Range& range) {
    for (int i = 0; i < a.panel_end - a.panel_begin; ++i) {
      const int panel = a.backward ? a.panel_end - 1 - i : a.panel_begin + i;
      I sums[1][gates];
      Qint8::template sum_one_row<gates == 4 ? 1 : 2, false>(
          sums, a.rows.q, *a.rows.quantization, panel_weights(a.weights, panel),
          a.weights.row_sum + std::ptrdiff_t{panel} * gates * block_rows, groups_of(a.weights));
      finish_panels<1>(a, {panel}, &sums, addend_of, finish, range);
    }
  }

  // Of a product on the side, `rows` rows by `blocks` blocks, whose sums stay in registers while a step's own
  // panels stream through: a group of inputs of the tile for every own_groups of theirs, so that both take
  // about as many multiplications.
  template <int gates, int rows>
  struct SideTile {
    static constexpr int blocks = side_tile_blocks(rows, gates);
    static constexpr int rows_at_once = blocks == 1 ? 4 : 1;  // three or four multiplications at once
    static constexpr int own_groups = rows / rows_at_once;
    // Activations of four rows, and of four of the panels' groups, come in one load each.
    static constexpr bool by_four = rows == 4 && own_groups == 4;

    const SideProduct& side;
    std::ptrdiff_t first;  // output
    const std::int8_t* w;
    const std::uint8_t* x;
    int left;  // groups of inputs
    I sums[rows][blocks];
    typename S::W weights[blocks];
    typename S::A4 four;  // by_four: this group of the rows

    [[gnu::always_inline]] SideTile(const SideProduct& product, int block)
        : side(product),
          first(std::ptrdiff_t{block} * block_rows),
          w(panel_weights(product.weights, block / gates) + block % gates * line),
          x(product.q),
          left(groups_of(product.weights)) {
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
        for (int b = 0; b < blocks; ++b)
          sums[r][b] = Qint8::start(side.quantization[r], side.weights.row_sum + first + b * block_rows);
    }
    [[gnu::always_inline]] void load_group() {
#pragma GCC unroll 4
      for (int b = 0; b < blocks; ++b) weights[b] = S::load_weights(w + b * line);
      if constexpr (by_four) four = S::broadcast_four(x);
    }
    // The i-th of own_groups parts of a group.
    [[gnu::always_inline]] void dot_part(int i) {
#pragma GCC unroll 4
      for (int r = i * rows_at_once; r < (i + 1) * rows_at_once; ++r) {
        const typename S::A q = by_four ? S::of_four(four, r) : S::broadcast(x + r * input_group);
#pragma GCC unroll 4
        for (int b = 0; b < blocks; ++b) S::dot(sums[r][b], weights[b], q);
      }
    }
    [[gnu::always_inline]] void next_group() {
      w += gates * line;
      x += rows * input_group;
      --left;
    }
    [[gnu::always_inline]] void store() const {
      F scale[blocks], bias[blocks];
#pragma GCC unroll 4
      for (int b = 0; b < blocks; ++b) {
        scale[b] = S::load(side.weights.scale + first + b * block_rows);
        bias[b] = S::load(side.bias + first + b * block_rows);
      }
      // Copies: the compiler must take it that a store changes what `side` says.
      const RowQuantization* quantization = side.quantization;
      float* y = side.y + first;
      const std::ptrdiff_t y_stride = side.y_stride;
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
        const F row_scale = S::set1(quantization[r].scale);
#pragma GCC unroll 4
        for (int b = 0; b < blocks; ++b)
          S::store(y + r * y_stride + b * block_rows,
                   S::fma(S::to_float(sums[r][b]), S::mul(row_scale, scale[b]), bias[b]));
      }
    }
  };

  // A step with another product on the side. The gates of its panels wait until a tile of that is done.
  template <int gates, int side_rows, class Addends, class Finish>
  static void panels_with_side(const StepArgs& a, const Addends& addend_of, const Finish& finish,
                               Range& range) {
    using Tile = SideTile<gates, side_rows>;
    constexpr std::ptrdiff_t group = gates * line;
    constexpr int own_groups = Tile::own_groups, most_waiting = 8;
    const int groups = groups_of(a.weights);
    const int count = a.panel_end - a.panel_begin;
    int done = 0;
    const int first_panel = a.backward ? a.panel_end - 1 : a.panel_begin, direction = a.backward ? -1 : 1;
    const auto panel_at = [&](int i) { return first_panel + (done + i) * direction; };
    I waiting[most_waiting][1][gates];
    const auto finish_waiting = [&](int n) {
      int i = 0;
      for (; i + 2 <= n; i += 2)
        finish_panels<2>(a, {panel_at(i), panel_at(i + 1)}, waiting + i, addend_of, finish, range);
      if (i < n) finish_panels<1>(a, {panel_at(i)}, waiting + i, addend_of, finish, range);
      done += n;
    };
    for (int block = a.side->block_begin; block < a.side->block_end; block += Tile::blocks) {
      Tile tile(*a.side, block);
      int n = 0;
      for (; tile.left > 0 && n < most_waiting && done + n < count; ++n) {
        const std::int8_t* w = panel_weights(a.weights, panel_at(n));
        const std::uint8_t* q = a.rows.q;
        I sums[gates];
        start_panel(a, panel_at(n), sums);
        int g = groups;
        for (; g >= own_groups && tile.left > 0;
             g -= own_groups, w += own_groups * group, q += own_groups * input_group) {
          tile.load_group();
          typename S::A4 four;
          if constexpr (Tile::by_four) four = S::broadcast_four(q);
#pragma GCC unroll 4
          for (int i = 0; i < own_groups; ++i) {
            dot_group(sums, w + i * group,
                      Tile::by_four ? S::of_four(four, i) : S::broadcast(q + i * input_group));
            tile.dot_part(i);
          }
          tile.next_group();
        }
        for (; g > 0; --g, w += group, q += input_group) dot_group(sums, w, S::broadcast(q));
#pragma GCC unroll 4
        for (int b = 0; b < gates; ++b) waiting[n][0][b] = sums[b];
      }
      for (; tile.left > 0; tile.next_group()) {
        tile.load_group();
#pragma GCC unroll 4
        for (int i = 0; i < own_groups; ++i) tile.dot_part(i);
      }
      tile.store();
      finish_waiting(n);
    }
    for (; done < count; ++done) {
      const Place at = {panel_at(0), 0};
      F y[1][gates];
      Qint8::product(y, a.weights, a.rows, 0, at.panel, addend_of(at.panel, 0));
      finish.template operator()<1>(&at, y, range);
    }
  }

  // float, or halves as uint16.
  template <class Weight>
  struct Floating {
    static F load_weights(const float* w) { return S::load(w); }
    static F load_weights(const std::uint16_t* w) { return S::load_half(w); }

    template <int MR, int NB, class Addends>
    static void product(F (&y)[MR][NB], const MatrixView& w, const Rows& rows, int r, int panel,
                        const Addends& addend) {
      const auto* weights = static_cast<const Weight*>(w.weights) +
                            static_cast<std::ptrdiff_t>(panel) * w.inputs * w.panel_rows();
      const float* x = rows.x + r * rows.stride;
#pragma GCC unroll 6
      for (int m = 0; m < MR; ++m)
#pragma GCC unroll 4
        for (int b = 0; b < NB; ++b) y[m][b] = S::set1(0);
      for (int k = 0; k < w.inputs; ++k) {
        F weight[NB];
#pragma GCC unroll 4
        for (int b = 0; b < NB; ++b)
          weight[b] = load_weights(weights + (k * std::ptrdiff_t{NB} + b) * block_rows);
#pragma GCC unroll 6
        for (int m = 0; m < MR; ++m) {
          const F a = S::set1(x[m * rows.stride + k]);
#pragma GCC unroll 4
          for (int b = 0; b < NB; ++b) y[m][b] = S::fma(weight[b], a, y[m][b]);
        }
      }
#pragma GCC unroll 6
      for (int m = 0; m < MR; ++m)
#pragma GCC unroll 4
        for (int b = 0; b < NB; ++b) y[m][b] = S::add(y[m][b], addend(m, b));
    }
  };

  // Calls tile.operator()<rows>(first row) over `count` rows, in tiles as equal as can be, but of whole pairs
  // where all are: the gates of two rows are computed together.
  template <class Tile>
  static void for_tiles(int count, const Tile& tile) {
    if (count == 0) return;
    const int tiles = (count + S::tile_rows - 1) / S::tile_rows;
    const int unit = count % 2 == 0 && S::tile_rows % 2 == 0 ? 2 : 1;
    const int rows = count / unit / tiles * unit, longer = count / unit % tiles;
    for (int t = 0, r = 0; t < tiles; ++t) {
      const int here = t < longer ? rows + unit : rows;
      call_tile<S::tile_rows>(here, r, tile);
      r += here;
    }
  }
  template <int MR, class Tile>
  static void call_tile(int rows, int r, const Tile& tile) {
    if constexpr (MR > 1) {
      if (rows < MR) return call_tile<MR - 1>(rows, r, tile);
    }
    tile.template operator()<MR>(r);
  }

  static void store_columns(float* y, F value, int columns) {
    if (columns >= 16)
      S::store(y, value);
    else if (columns > 0)
      S::store_first(y, value, columns);
  }

  // Calls visit.operator()<NB>(panel) for panels [begin, end), each with its number of blocks.
  template <class Visit>
  static void for_panels(const MatrixView& w, int begin, int end, const Visit& visit) {
    for (int panel = begin; panel < end; ++panel) {
      const int left = w.blocks - panel * w.panel_blocks;
      switch (left < w.panel_blocks ? left : w.panel_blocks) {
        case 1:
          visit.template operator()<1>(panel);
          break;
        case 2:
          visit.template operator()<2>(panel);
          break;
        case 3:
          visit.template operator()<3>(panel);
          break;
        default:
          visit.template operator()<4>(panel);
      }
    }
  }

  template <int MR, int NB>
  static void store_products(const ProjectArgs& a, const F (&y)[MR][NB], int r, int panel) {
    const int first = panel * a.weights.panel_rows(), columns = a.columns - first;
#pragma GCC unroll 6
    for (int m = 0; m < MR; ++m) {
      float* to = a.y + (r + m) * a.y_stride + first;
      if (columns >= NB * block_rows) {  // asked once a row, not once a vector
#pragma GCC unroll 4
        for (int b = 0; b < NB; ++b) S::store(to + b * block_rows, y[m][b]);
      } else {
        for (int b = 0; b < NB; ++b) store_columns(to + b * block_rows, y[m][b], columns - b * block_rows);
      }
    }
  }

  // Compiled by itself, as GCC 12 otherwise spills the sums of the tiles.
  __attribute__((noinline, flatten)) static void project_far_row(const ProjectArgs& a) {
    for_panels(a.weights, a.panel_begin, a.panel_end, [&]<int NB>(int panel) {
      F y[1][NB];
      Qint8::template product<true>(y, a.weights, a.rows, 0, panel,
                                    Addend{a.bias + panel * a.weights.panel_rows(), 0});
      store_products(a, y, 0, panel);
    });
  }

  template <class Product>
  __attribute__((flatten)) static void project(const ProjectArgs& a) {
    if constexpr (S::sum_streams == 2 && std::is_same_v<Product, Qint8>)
      if (a.far && a.rows.count == 1) return project_far_row(a);
    for_panels(a.weights, a.panel_begin, a.panel_end, [&]<int NB>(int panel) {
      for_tiles(a.rows.count, [&]<int MR>(int r) {
        F y[MR][NB];
        Product::product(y, a.weights, a.rows, r, panel, Addend{a.bias + panel * a.weights.panel_rows(), 0});
        store_products(a, y, r, panel);
      });
    });
  }

  // A step's new h: stored, and kept for its quantization. What stands past hidden_size is zero as long as h
  // is finite: it changes neither the smallest nor the largest value.
  static void put_h(const StepArgs& a, int unit, int row, F h, Range& range) {
    store_columns(a.h + row * a.h_stride + unit, h, a.hidden_size - unit);
    if (a.next.q == nullptr) return;
    S::store(a.next.row + unit, h);
    range.look(h);
  }
  static void quantize_h(const StepArgs& a, const Range& range) {
    if (a.next.q == nullptr) return;
    const Rounding rounding = rounding_of(range, *a.next.quantization);
    for (int k = 0; k < a.hidden_size; k += 16) rounding.put(S::load(a.next.row + k), a.next.q + k);
  }

  // The gates of N vectors of 16 units, one, two or four, are computed together.
  template <int N>
  using Ops = std::conditional_t<N == 1, S, std::conditional_t<N == 2, Twice<S>, Twice<Twice<S>>>>;
  template <int N, class Value>
  static typename Ops<N>::F join(const Value& value) {
    if constexpr (N == 1)
      return value(0);
    else if constexpr (N == 2)
      return {value(0), value(1)};
    else
      return {{value(0), value(1)}, {value(2), value(3)}};
  }
  template <int N, class Visit>
  static void split(const typename Ops<N>::F& joined, const Visit& visit) {
    if constexpr (N == 1) {
      visit(0, joined);
    } else if constexpr (N == 2) {
      visit(0, joined.first);
      visit(1, joined.second);
    } else {
      visit(0, joined.first.first);
      visit(1, joined.first.second);
      visit(2, joined.second.first);
      visit(3, joined.second.second);
    }
  }

  // Which 16 units of which row.
  struct Place {
    int panel, row;
  };
  static float* state_at(const StepArgs& a, Place at) {
    return a.state + at.row * a.state_stride + at.panel * block_rows;
  }

  // The two halves of a new state. What the first gives, the second takes; that gives h.
  struct FinishLstm {
    template <int N>
    static typename Ops<N>::F first(const StepArgs& a, const Place* at, const F (*gates)[4]) {
      const auto gate = [&](int g) { return join<N>([&](int n) { return gates[n][g]; }); };
      const auto before = join<N>([&](int n) { return S::load(state_at(a, at[n])); });
      const auto c = SimdGates<Ops<N>>::lstm_c(gate(0), gate(1), gate(2), before);
      split<N>(c, [&](int n, F value) { S::store(state_at(a, at[n]), value); });
      return c;
    }
    template <int N>
    static typename Ops<N>::F second(const StepArgs&, const Place*, const F (*gates)[4],
                                     typename Ops<N>::F c) {
      return SimdGates<Ops<N>>::lstm_h(join<N>([&](int n) { return gates[n][3]; }), c);
    }
  };

  struct FinishGru {
    template <int N>
    static typename Ops<N>::F first(const StepArgs& a, const Place* at, const F (*gates)[3]) {
      const auto gate = [&](int g) { return join<N>([&](int n) { return gates[n][g]; }); };
      const auto input_n = join<N>([&](int n) {
        return S::load(a.pre + at[n].row * a.pre_stride + (std::ptrdiff_t{at[n].panel} * 3 + 2) * block_rows);
      });
      return SimdGates<Ops<N>>::gru_before_tanh(gate(0), input_n, gate(2));
    }
    template <int N>
    static typename Ops<N>::F second(const StepArgs& a, const Place* at, const F (*gates)[3],
                                     typename Ops<N>::F before_tanh) {
      const auto before = join<N>([&](int n) { return S::load(state_at(a, at[n])); });
      const auto h =
          SimdGates<Ops<N>>::gru_h(join<N>([&](int n) { return gates[n][1]; }), before_tanh, before);
      split<N>(h, [&](int n, F value) { S::store(state_at(a, at[n]), value); });
      return h;
    }
  };

  // Makes the new state of N panels, or rows, of their gates.
  template <int gate_count, class Finish>
  struct NewState {
    const StepArgs& a;
    template <int N>
    typename Ops<N>::F first(const Place* at, const F (*gates)[gate_count]) const {
      return Finish::template first<N>(a, at, gates);
    }
    template <int N>
    void second(const Place* at, const F (*gates)[gate_count], typename Ops<N>::F from_first,
                Range& range) const {
      split<N>(Finish::template second<N>(a, at, gates, from_first),
               [&](int n, F h) { put_h(a, at[n].panel * block_rows, at[n].row, h, range); });
    }
    template <int N>
    void operator()(const Place* at, const F (*gates)[gate_count], Range& range) const {
      second<N>(at, gates, first<N>(at, gates), range);
    }
  };

  // Compiled by itself, as the registers of the others are not to be spilled for it.
  template <int gate_count, class Finish, class AddendOf>
  __attribute__((noinline, flatten)) static void step_with_side(const StepArgs& a,
                                                                const AddendOf& addend_of) {
    Range range;
    const NewState<gate_count, Finish> finish{a};
    if (a.side->rows == side_rows_by_panel)
      panels_with_side<gate_count, side_rows_by_panel>(a, addend_of, finish, range);
    else
      panels_with_side<gate_count, side_rows_by_block>(a, addend_of, finish, range);
    quantize_h(a, range);
  }

  // This one too, for the same reason.
  template <int gate_count, class Finish, class AddendOf>
  __attribute__((noinline, flatten)) static void step_in_turn(const StepArgs& a, const AddendOf& addend_of) {
    Range range;
    const NewState<gate_count, Finish> finish{a};
    panels_in_turn<gate_count>(a, addend_of, finish, range);
    quantize_h(a, range);
  }

  // A multiple of four rows, four at a time, whose gates are made in the loop of the next four: each half of
  // a pair's, a long chain, behind a quarter of the products, so that it runs beside the next quarter. Four
  // rows leave registers for that, six do not.
  template <int gate_count, class Finish, class AddendOf>
  __attribute__((noinline, flatten)) static void step_interleaved(const StepArgs& a,
                                                                  const AddendOf& addend_of) {
    constexpr int rows = 4;
    const int groups = groups_of(a.weights);
    const NewState<gate_count, Finish> finish{a};
    Range range;
    F gates[rows][gate_count];
    Place at[rows];
    const auto multiply = [&](int panel, int r, const auto& after_quarter) __attribute__((always_inline)) {
      const std::uint8_t* q = a.rows.q + r * a.rows.stride;
      const std::int8_t* w = panel_weights(a.weights, panel);
      I sums[rows][gate_count];
      Qint8::start_rows(sums, a.rows.quantization + r,
                        a.weights.row_sum + std::ptrdiff_t{panel} * gate_count * block_rows);
#pragma GCC unroll 4
      for (int n = 0; n < 4; ++n) {
        Qint8::dot_groups(sums, q, a.rows.stride, w, groups * n / 4, groups * (n + 1) / 4);
        after_quarter(n);
      }
      Qint8::to_float(gates, sums, a.weights, a.rows, r, panel, addend_of(panel, r));
#pragma GCC unroll 4
      for (int m = 0; m < rows; ++m) at[m] = {panel, r + m};
    };
    typename Ops<2>::F from_first;
    const auto half_a_pair = [&](int n) __attribute__((always_inline)) {
      if (n % 2 == 0) {
        from_first = finish.template first<2>(at + n, gates + n);
        // GCC would compute it where it is used, behind the next quarter.
        split<2>(from_first, [](int, F value) { S::make_now(value); });
      } else {
        finish.template second<2>(at + n - 1, gates + n - 1, from_first, range);
      }
    };
    if (a.panel_begin == a.panel_end || a.rows.count == 0) return;
    const int last = a.backward ? a.panel_begin : a.panel_end - 1, direction = a.backward ? -1 : 1;
    int panel = a.backward ? a.panel_end - 1 : a.panel_begin, r = 0;
    multiply(panel, r, [](int) {});
    for (;;) {
      r += rows;
      if (r == a.rows.count) {
        if (panel == last) break;
        panel += direction;
        r = 0;
      }
      multiply(panel, r, half_a_pair);
    }
    finish.template operator()<2>(at, gates, range);
    finish.template operator()<2>(at + 2, gates + 2, range);
  }

  // One panel after the other, in tiles of rows.
  template <class Product, int gate_count, class AddendOf, class Finish>
  static void panels_in_tiles(const StepArgs& a, const AddendOf& addend_of, const Finish& finish,
                              Range& range) {
    for (int i = 0; i < a.panel_end - a.panel_begin; ++i) {
      const int panel = a.backward ? a.panel_end - 1 - i : a.panel_begin + i;
      for_tiles(a.rows.count, [&]<int MR>(int r) {
        F gates[MR][gate_count];
        Product::product(gates, a.weights, a.rows, r, panel, addend_of(panel, r));
        int m = 0;
        for (; m + 2 <= MR; m += 2) {
          const Place at[] = {{panel, r + m}, {panel, r + m + 1}};
          finish.template operator()<2>(at, gates + m, range);
        }
        if constexpr (MR % 2 == 1) {
          const Place at = {panel, r + m};
          finish.template operator()<1>(&at, gates + m, range);
        }
      });
    }
  }

  // A step of an LSTM or a GRU. addend_of(panel, r) is what the product of row r is added to; Finish makes h
  // of gates.
  template <class Product, int gate_count, class Finish, class AddendOf>
  static void gated_step(const StepArgs& a, const AddendOf& addend_of) {
    Range range;
    const NewState<gate_count, Finish> finish{a};
    if constexpr (S::side_products && std::is_same_v<Product, Qint8>) {
      if (a.side != nullptr) return step_with_side<gate_count, Finish>(a, addend_of);
      if (weights_are_near(a)) {
        panels_together<gate_count>(a, addend_of, finish, range);
        return quantize_h(a, range);
      }
      if (a.rows.count == 1) return step_in_turn<gate_count, Finish>(a, addend_of);
    }
    if constexpr (S::tile_rows >= 4 && std::is_same_v<Product, Qint8>)
      if (a.rows.count % 4 == 0) return step_interleaved<gate_count, Finish>(a, addend_of);
    panels_in_tiles<Product, gate_count>(a, addend_of, finish, range);
    quantize_h(a, range);
  }

  template <int gates>
  static auto addend_at(const StepArgs& a, int panel, int r) {
    const float* pre = a.pre + r * a.pre_stride + std::ptrdiff_t{panel} * gates * block_rows;
    if constexpr (gates == 4)
      return Addend{pre, a.pre_stride};
    else
      return GruAddend{pre, a.pre_stride, a.hidden_bias + panel * block_rows};
  }

  template <class Product>
  __attribute__((flatten)) static void lstm_step(const StepArgs& a) {
    gated_step<Product, 4, FinishLstm>(a, [&](int panel, int r) { return addend_at<4>(a, panel, r); });
  }

  template <class Product>
  __attribute__((flatten)) static void gru_step(const StepArgs& a) {
    gated_step<Product, 3, FinishGru>(a, [&](int panel, int r) { return addend_at<3>(a, panel, r); });
  }

  template <class Product>
  __attribute__((flatten)) static void rnn_step(const StepArgs& a) {
    Range range;
    for_panels(a.weights, a.panel_begin, a.panel_end, [&]<int NB>(int panel) {
      const int first = panel * a.weights.panel_rows();
      for_tiles(a.rows.count, [&]<int MR>(int r) {
        F gates[MR][NB];
        Product::product(gates, a.weights, a.rows, r, panel,
                         Addend{a.pre + r * a.pre_stride + first, a.pre_stride});
        for (int m = 0; m < MR; ++m)
          for (int b = 0; b < NB; ++b)
            put_h(a, first + b * block_rows, r + m,
                  a.relu ? S::relu(gates[m][b]) : SimdGates<S>::tanh(gates[m][b]), range);
      });
    });
    quantize_h(a, range);
  }

  // ---- A whole sequence ----

  // The input's part of the gates of step t.
  template <int gates, int panels>
  static void input_part(const SequenceArgs& a, std::ptrdiff_t t, float* pre) {
    if (const QuantizeArgs& to = a.quantize; to.x != nullptr) {
      const float* x = to.x + t * to.x_stride;
      const Rounding rounding = look_at_row(x, to.inputs, to.quantization[t * a.direction]);
      round_row(x, to.inputs, rounding, to.q + t * to.q_stride);
    }
    const Rows row = {a.input.q + t * a.input.stride, a.input.quantization + t * a.direction, nullptr, 0, 1};
#pragma GCC unroll 2
    for (int panel = 0; panel < panels; ++panel) {
      const int first = panel * gates * block_rows;
      F y[1][gates];
      Qint8::product(y, a.input_weights, row, 0, panel, Addend{a.bias + first, 0});
#pragma GCC unroll 4
      for (int b = 0; b < gates; ++b) S::store(pre + first + b * block_rows, y[0][b]);
    }
  }

  // Compiled for each number of panels: a loop over them takes a tenth longer.
  template <int gates, class Finish, int panels>
  __attribute__((noinline, flatten)) static void sequence_of(const SequenceArgs& a) {
    alignas(64) float pre[panels * gates * block_rows], h[panels * block_rows];
    StepArgs step{.weights = a.weights,
                  .rows = {a.q, a.quantization, nullptr, 0, 1},
                  .pre = pre,
                  .pre_stride = 0,
                  .hidden_bias = a.hidden_bias,
                  .state = a.state,
                  .state_stride = 0,
                  .h = a.h,
                  .h_stride = 0,
                  .hidden_size = a.hidden_size,
                  .panel_begin = 0,
                  .panel_end = panels,
                  .next = {h, a.q, a.quantization}};
    const auto addend_of = [&](int panel, int r) { return addend_at<gates>(step, panel, r); };
    const NewState<gates, Finish> finish{step};
    input_part<gates, panels>(a, 0, pre);
    for (int t = 0; t < a.steps; ++t) {
      step.rows.q = step.next.q;
      step.rows.quantization = step.next.quantization;
      step.next.q += a.q_stride;
      step.next.quantization += a.direction;
      step.h = a.h + t * a.h_stride;
      Range range;
      if constexpr (S::side_products)
        panels_together<gates>(step, addend_of, finish, range);
      else
        panels_in_tiles<Qint8, gates>(step, addend_of, finish, range);
      quantize_h(step, range);
      // Behind the chain that the next step waits for, not before it.
      if (t + 1 < a.steps) input_part<gates, panels>(a, t + 1, pre);
    }
  }

  template <int gates, class Finish>
  static void sequence(const SequenceArgs& a) {
    static_assert(most_sequence_panels == 2);
    if (a.weights.blocks == gates)
      sequence_of<gates, Finish, 1>(a);
    else
      sequence_of<gates, Finish, 2>(a);
  }
};

template <class S>
constexpr KernelTable simd_table(const char* name, std::uint32_t required_features) {
  using K = SimdKernels<S>;
  using Float32 = typename K::template Floating<float>;
  using Float16 = typename K::template Floating<std::uint16_t>;
  using Qint8 = typename K::Qint8;
  return {
      .name = name,
      .required_features = required_features,
      .activation_offset = S::activation_offset,
      .side_products = S::side_products,
      .quantize_rows = K::quantize_rows,
      .projects = {K::template project<Float32>, K::template project<Float16>, K::template project<Qint8>},
      .steps = {{K::template lstm_step<Float32>, K::template lstm_step<Float16>,
                 K::template lstm_step<Qint8>},
                {K::template gru_step<Float32>, K::template gru_step<Float16>, K::template gru_step<Qint8>},
                {K::template rnn_step<Float32>, K::template rnn_step<Float16>, K::template rnn_step<Qint8>}},
      .sequences = {K::template sequence<4, typename K::FinishLstm>,
                    K::template sequence<3, typename K::FinishGru>, nullptr},
  };
}

}  // namespace fourfold::kernels
