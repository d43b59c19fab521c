# Libraries: what the system has comes first; what it lacks is fetched.
include(FetchContent)

# fourfold_dependency(package repository tag): find_package, or else that tag of the repository.
function(fourfold_dependency package repository tag)
  find_package(${package} QUIET)
  if(NOT ${package}_FOUND)
    message(STATUS "${package} is not installed: fetching ${repository} ${tag}")
    FetchContent_Declare(${package} GIT_REPOSITORY ${repository} GIT_TAG ${tag} GIT_SHALLOW TRUE)
    FetchContent_MakeAvailable(${package})
  endif()
endfunction()

fourfold_dependency(nlohmann_json https://github.com/nlohmann/json.git v3.11.2)
if(FOURFOLD_CLI OR FOURFOLD_EXAMPLES OR FOURFOLD_FUZZ)
  fourfold_dependency(CLI11 https://github.com/CLIUtils/CLI11.git v2.3.2)
  fourfold_dependency(fmt https://github.com/fmtlib/fmt.git 9.1.0)
endif()
if(FOURFOLD_TESTS OR FOURFOLD_FUZZ)
  fourfold_dependency(GTest https://github.com/google/googletest.git v1.12.1)
endif()
if(FOURFOLD_BENCH)
  fourfold_dependency(benchmark https://github.com/google/benchmark.git v1.7.1)
endif()
