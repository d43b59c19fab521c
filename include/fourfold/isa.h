// Instruction sets: what this machine has, and which one the kernels use.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fourfold {

struct IsaInfo {
  std::string name;               // "avx512_vnni", "avx2", "scalar"
  std::string requires_features;  // "avx2 fma", as /proc/cpuinfo spells them; empty for scalar
  bool supported;                 // by this CPU and by the operating system's state
};

// All that this build contains, best first; scalar, the definition, is last.
std::vector<IsaInfo> available_isas();

// The one that weights packed from now on will use: what set_isa chose, else what the environment
// variable FOURFOLD_ISA names, else the best that the machine supports.
// Throws InvalidArgument where FOURFOLD_ISA names one that is unknown or that the machine lacks.
std::string current_isa();

// Forces one for weights packed from now on, whichever thread packs them; "" goes back to the choice
// above. Results have the same bits in all. Throws InvalidArgument as current_isa does.
void set_isa(std::string_view name);

}  // namespace fourfold
