// AArch64 with the dot product: one instruction multiplies and adds sixteen bytes.
#include "kernels/neon.h"

namespace fourfold::kernels {
namespace {

struct WithDot {
  static int32x4_t add_products(int32x4_t sum, int8x16_t w, int8x16_t a) { return vdotq_s32(sum, w, a); }
};

}  // namespace

extern const KernelTable neon_dotprod_table;
constexpr KernelTable neon_dotprod_table = simd_table<Neon<WithDot>>("neon_dotprod", base::cpu_asimddp);

}  // namespace fourfold::kernels
