// fourfold isa: what the machine has, and which instruction set is used.
#include "fourfold/isa.h"

#include <fmt/format.h>

#include <memory>

#include "base/cpu.h"
#include "output.h"
#include "verbs.h"

namespace cli {

Run add_isa(CLI::App& command) {
  const auto json = std::make_shared<bool>(false);
  command.add_flag("--json", *json, "Print JSON");
  return [json] {
    const std::string used = fourfold::current_isa();
    const std::vector<fourfold::IsaInfo> isas = fourfold::available_isas();
    if (*json) {
      Json list = Json::array();
      for (const auto& isa : isas)
        list.push_back({{"name", isa.name},
                        {"requires", isa.requires_features},
                        {"supported", isa.supported},
                        {"used", isa.name == used}});
      print_json({{"cpu", fourfold::base::cpu_name()}, {"isas", std::move(list)}});
      return 0;
    }
    fmt::print("CPU: {}\n\n", fourfold::base::cpu_name());
    std::vector<std::vector<std::string>> rows;
    for (const auto& isa : isas)
      rows.push_back({isa.name, isa.supported ? "yes" : "no", isa.name == used ? "yes" : "",
                      isa.requires_features.empty() ? "nothing" : isa.requires_features});
    print_table({"instruction set", "supported", "used", "needs"}, rows);
    flush_output();
    return 0;
  };
}

}  // namespace cli
