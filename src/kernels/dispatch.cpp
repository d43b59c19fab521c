// Which table is used.
#include <atomic>
#include <cstdlib>
#include <string>

#include "base/cpu.h"
#include "fourfold/error.h"
#include "fourfold/isa.h"
#include "kernels/kernels.h"

namespace fourfold::kernels {

// isas.inc is made by CMake from its calls of add_isa, best first: FOURFOLD_ISA(name) a line.
#define FOURFOLD_ISA(name) extern const KernelTable name##_table;
#include "kernels/isas.inc"
#undef FOURFOLD_ISA

namespace {

constexpr const KernelTable* tables[] = {
#define FOURFOLD_ISA(name) &name##_table,
#include "kernels/isas.inc"
#undef FOURFOLD_ISA
};

std::atomic<const KernelTable*> forced{nullptr};

// `source` is what named the instruction set, for the message.
const KernelTable& table_named(std::string_view name, std::string_view source) {
  std::string known;
  for (const KernelTable* table : tables) {
    known += known.empty() ? "" : ", ";
    known += table->name;
    if (name != table->name) continue;
    if (is_supported(*table)) return *table;
    throw InvalidArgument(std::string(source) + ": this machine lacks " +
                          base::cpu_feature_names(table->required_features & ~base::cpu_features()) +
                          ", which '" + std::string(name) + "' needs");
  }
  throw InvalidArgument(std::string(source) + ": no instruction set '" + std::string(name) +
                        "'; this build has " + known);
}

}  // namespace

std::span<const KernelTable* const> all_tables() { return tables; }

bool is_supported(const KernelTable& table) { return (table.required_features & ~base::cpu_features()) == 0; }

const KernelTable& current_table() {
  if (const KernelTable* table = forced.load(std::memory_order_acquire)) return *table;
  const char* wanted = std::getenv("FOURFOLD_ISA");
  if (wanted != nullptr && *wanted != '\0') return table_named(wanted, "FOURFOLD_ISA");
  for (const KernelTable* table : tables)
    if (is_supported(*table)) return *table;
  return *tables[std::size(tables) - 1];  // scalar, which needs nothing
}

}  // namespace fourfold::kernels

namespace fourfold {

std::vector<IsaInfo> available_isas() {
  std::vector<IsaInfo> isas;
  for (const kernels::KernelTable* table : kernels::all_tables())
    isas.push_back(
        {table->name, base::cpu_feature_names(table->required_features), kernels::is_supported(*table)});
  return isas;
}

std::string current_isa() { return kernels::current_table().name; }

void set_isa(std::string_view name) {
  kernels::forced.store(name.empty() ? nullptr : &kernels::table_named(name, "set_isa"),
                        std::memory_order_release);
}

}  // namespace fourfold
