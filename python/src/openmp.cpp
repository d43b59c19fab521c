// Teams on the threads of the OpenMP runtime that PyTorch runs its own operators on
// (docs/decisions/0006-teams-on-openmp-threads.md).
#include "base/thread_pool.h"
#include "bindings.h"

#if defined(__linux__)
#include <dlfcn.h>

#include <exception>
#include <latch>
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
OpenMp openmp{};

// PyTorch's runtime, found without linking to either. PyTorch puts it where all libraries look for symbols,
// unless one that was preloaded is there before it; then that is PyTorch's too.
bool find_openmp() {
  void* const torch = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
  if (torch == nullptr) return false;
  dlclose(torch);  // only asked whether it is there
  const auto find = [](auto& function, const char* name) {
    void* const address = dlsym(RTLD_DEFAULT, name);
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(address);
    return address != nullptr;
  };
  return find(openmp.parallel, "GOMP_parallel") && find(openmp.level, "omp_get_level") &&
         find(openmp.max_threads, "omp_get_max_threads") && find(openmp.num_threads, "omp_get_num_threads") &&
         find(openmp.thread_num, "omp_get_thread_num");
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

bool run_on_openmp(int threads, void (*member)(void*, int, int), void* context) {
  // Inside somebody's region the cores are taken.
  if (openmp.level() > 0) {
    member(context, 0, 1);
    return true;
  }
  // A region is one as PyTorch opens them, of its number of threads: for any other, GCC's runtime would end
  // threads and start new ones, here and again in PyTorch's next operator. A larger team is for the pool.
  const int most = openmp.max_threads();
  if (threads > most) return false;
  // Each thread that opens regions has threads of its own for them, and where one cannot be started, GCC's
  // runtime ends the process. So that is tried before the first.
  thread_local int started = 1;
  if (most > started && !can_start(most - started)) return false;
  started = most;

  struct Region {
    void (*member)(void*, int, int);
    void* context;
  } region{member, context};
  constexpr unsigned no_number = 0;
  openmp.parallel(
      [](void* given) {
        const Region& its = *static_cast<Region*>(given);
        its.member(its.context, openmp.thread_num(), openmp.num_threads());
      },
      &region, no_number, 0);
  return true;
}

#else

bool find_openmp() { return false; }
constexpr base::TeamHost run_on_openmp = nullptr;

#endif

}  // namespace

void bind_openmp(nb::module_& m) {
  m.def(
      "use_openmp",
      [](bool wanted) {
        const bool used = wanted && find_openmp();
        base::set_team_host(used ? run_on_openmp : nullptr);
        return used;
      },
      nb::arg("wanted"),
      "Whether teams run on the threads of PyTorch's OpenMP runtime. Returns whether they do: there may be\n"
      "none. Not for the child of a fork: OpenMP would wait there for threads that its parent has.");
}

}  // namespace fourfold::python
