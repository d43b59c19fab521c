// AArch64 with the dot product: one instruction multiplies and adds sixteen bytes.
#include "kernels/neon.h"

namespace fourfold::kernels {
namespace {

struct NeonDotprod : Neon {
  static void dot(I& sum, W w, A a) {
    sum.v0 = vdotq_s32(sum.v0, w.v0, a);
    sum.v1 = vdotq_s32(sum.v1, w.v1, a);
    sum.v2 = vdotq_s32(sum.v2, w.v2, a);
    sum.v3 = vdotq_s32(sum.v3, w.v3, a);
  }
};

}  // namespace

extern const KernelTable neon_dotprod_table;
constexpr KernelTable neon_dotprod_table = simd_table<NeonDotprod>("neon_dotprod", base::cpu_asimddp);

}  // namespace fourfold::kernels
