// AArch64 as every CPU has it.
#include "kernels/neon.h"

namespace fourfold::kernels {
namespace {

struct WithoutDot {
  // |w|, |a| <= 127 keeps the sum of two products, at most 2 * 127 * 127 = 32258, inside an int16.
  static int32x4_t add_products(int32x4_t sum, int8x16_t w, int8x16_t a) {
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(a)), high = vmull_high_s8(w, a);
    return vpadalq_s16(sum, vpaddq_s16(low, high));
  }
};

}  // namespace

extern const KernelTable neon_table;
constexpr KernelTable neon_table = simd_table<Neon<WithoutDot>>("neon", 0);

}  // namespace fourfold::kernels
