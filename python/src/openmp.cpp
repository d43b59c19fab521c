// Teams on the threads of the OpenMP runtime that PyTorch runs its own operators on
// (docs/decisions/0006-teams-on-openmp-threads.md).
#include "base/thread_pool.h"
#include "bindings.h"

#if defined(__linux__)
#include <dlfcn.h>

#include <exception>
#include <latch>
#include <optional>
#include <thread>
#include <type_traits>
#include <vector>
#endif

namespace fourfold::python {

namespace nb = nanobind;

namespace {

#if defined(__linux__)

// What every OpenMP runtime on Linux has, GCC's, LLVM's and Intel's.
struct OpenMp {
  void (*parallel)(void (*body)(void*), void* context, unsigned threads, unsigned flags);
  int (*level)();
  int (*max_threads)();
  int (*num_threads)();
  int (*thread_num)();
};

// PyTorch's runtime, found without linking to either. PyTorch puts it where all libraries look for symbols,
// unless one that was preloaded is there before it; then that is PyTorch's too.
std::optional<OpenMp> find_openmp() {
  OpenMp found{};
  const auto find = [](auto& function, const char* name) {
    void* const address = dlsym(RTLD_DEFAULT, name);
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(address);
    return address != nullptr;
  };
  if (find(found.parallel, "GOMP_parallel") && find(found.level, "omp_get_level") &&
      find(found.max_threads, "omp_get_max_threads") && find(found.num_threads, "omp_get_num_threads") &&
      find(found.thread_num, "omp_get_thread_num"))
    return found;
  return {};
}

bool has_torch() {
  void* const torch = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
  if (torch != nullptr) dlclose(torch);  // only asked whether it is there
  return torch != nullptr;
}

// Looked for once, when PyTorch is there; teams run on it only after that.
const std::optional<OpenMp>& openmp() {
  static const std::optional<OpenMp> found = find_openmp();
  return found;
}

// Whether the system gives so many threads more, all at once.
bool can_start(int threads) {
  std::latch tried(1);
  std::vector<std::thread> started;
  try {
    started.reserve(static_cast<std::size_t>(threads));
    for (int i = 0; i < threads; ++i) started.emplace_back([&] { tried.wait(); });
  } catch (const std::exception&) {
    // So many then.
  }
  tried.count_down();
  for (std::thread& thread : started) thread.join();
  return static_cast<int>(started.size()) == threads;
}

bool has_openmp() { return has_torch() && openmp().has_value(); }

bool run_on_openmp(int threads, void (*member)(void*, int, int), void* context) {
  const OpenMp& omp = *openmp();
  // Inside somebody's region the cores are taken.
  if (omp.level() > 0) {
    member(context, 0, 1);
    return true;
  }
  // A region is one as PyTorch opens them, of its number of threads: for any other, GCC's runtime would end
  // threads and start new ones, here and again in PyTorch's next operator. A larger team is for the pool, and
  // so is one so small that most of the region's threads would be woken for nothing.
  const int most = omp.max_threads();
  if (threads > most || most > 2 * threads) return false;
  // Each thread that opens regions has threads of its own for them, and where one cannot be started, GCC's
  // runtime ends the process. So that is tried before the first.
  thread_local int started = 1, refused = 0;
  if (most > started) {
    if (most == refused) return false;
    if (!can_start(most - started)) {
      refused = most;
      return false;
    }
    started = most;
  }

  struct Region {
    void (*member)(void*, int, int);
    void* context;
    const OpenMp& omp;
  } region{member, context, omp};
  constexpr unsigned no_number = 0;
  omp.parallel(
      [](void* given) {
        const Region& its = *static_cast<Region*>(given);
        its.member(its.context, its.omp.thread_num(), its.omp.num_threads());
      },
      &region, no_number, 0);
  return true;
}

#else

bool has_openmp() { return false; }
constexpr base::TeamHost run_on_openmp = nullptr;

#endif

}  // namespace

void bind_openmp(nb::module_& m) {
  m.def(
      "use_openmp",
      [](bool wanted) {
        const bool used = wanted && has_openmp();
        base::set_team_host(used ? run_on_openmp : nullptr);
        return used;
      },
      nb::arg("wanted"),
      "Whether teams run on the threads of PyTorch's OpenMP runtime. Returns whether they do: there may be\n"
      "none. Not for the child of a fork: OpenMP would wait there for threads that its parent has.");
}

}  // namespace fourfold::python
