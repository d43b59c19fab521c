// AArch64 as every CPU has it.
#include "kernels/neon.h"

namespace fourfold::kernels {
namespace {

struct NeonBaseline : Neon {
  // |w|, |a| <= 127 keeps the sum of two products, at most 2 * 127 * 127 = 32258, inside an int16.
  static int32x4_t add_products(int32x4_t sum, int8x16_t w, int8x16_t a) {
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(a)), high = vmull_high_s8(w, a);
    return vpadalq_s16(sum, vpaddq_s16(low, high));
  }
  static void dot(I& sum, W w, A a) {
    sum.v0 = add_products(sum.v0, w.v0, a);
    sum.v1 = add_products(sum.v1, w.v1, a);
    sum.v2 = add_products(sum.v2, w.v2, a);
    sum.v3 = add_products(sum.v3, w.v3, a);
  }
};

}  // namespace

extern const KernelTable neon_table;
constexpr KernelTable neon_table = simd_table<NeonBaseline>("neon", 0);

}  // namespace fourfold::kernels
