#!/usr/bin/env bash
# Makes sure that what a target needs is installed: with apt where it may, else it says exactly what to install.
#   tools/setup.sh build|test|test-aarch64|test-baseline|bits|bench|fuzz|lint
# shellcheck disable=SC2317  # the functions are called through need
set -euo pipefail

set_of_packages=${1:-build}
missing=()

# need PACKAGE COMMAND...: the package is missing where the command fails.
need() {
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}
has_header() { [ -e "/usr/include/$1" ] || [ -e "/usr/local/include/$1" ] || [ -e "/opt/homebrew/include/$1" ]; }
can_fuzz() {
  echo '#include <fuzzer/FuzzedDataProvider.h>
extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' |
    clang++ -fsanitize=fuzzer,address -x c++ - -o /dev/null
}
has_browser() { command -v chromium || command -v google-chrome; }  # for the test of the analysis' page
has_cmake() {
  local version
  version=$(cmake --version 2>/dev/null | sed -nE '1s/[^0-9]*([0-9]+)\.([0-9]+).*/\1 \2/p')
  [ -n "$version" ] || return 1
  # shellcheck disable=SC2086
  set -- $version
  [ "$1" -gt 3 ] || { [ "$1" -eq 3 ] && [ "$2" -ge 25 ]; }
}

need g++ command -v "${CXX:-c++}"
need cmake has_cmake
need ninja-build command -v ninja
need python3 command -v python3
need nlohmann-json3-dev has_header nlohmann/json.hpp
need libcli11-dev has_header CLI/CLI.hpp
need libfmt-dev has_header fmt/format.h
case $set_of_packages in
  build) ;;
  test)
    need libgtest-dev has_header gtest/gtest.h
    need clang-format command -v clang-format
    need binutils command -v nm
    need chromium has_browser
    ;;
  test-baseline)
    need libgtest-dev has_header gtest/gtest.h
    need qemu-user command -v qemu-x86_64
    ;;
  test-aarch64 | bits)
    need libgtest-dev has_header gtest/gtest.h
    need googletest test -e /usr/src/googletest/CMakeLists.txt
    need g++-aarch64-linux-gnu command -v aarch64-linux-gnu-g++
    need qemu-user command -v qemu-aarch64
    [ "$set_of_packages" = test-aarch64 ] || need clang command -v clang++
    ;;
  bench) need libbenchmark-dev has_header benchmark/benchmark.h ;;
  fuzz)
    need clang command -v clang++
    # apt's clang only recommends its runtime: a system without recommended packages has it apart.
    version=$(clang++ -dumpversion 2>/dev/null | cut -d. -f1)
    [ -z "$version" ] || need "libclang-rt-$version-dev" can_fuzz
    need libgtest-dev has_header gtest/gtest.h
    ;;
  lint)
    need clang-tidy command -v clang-tidy
    need clang-format command -v clang-format
    ;;
  *)
    echo "usage: tools/setup.sh build|test|test-aarch64|test-baseline|bits|bench|fuzz|lint" >&2
    exit 2
    ;;
esac
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then as_root=(sudo -n); fi
if command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || sudo -n true 2>/dev/null; }; then
  echo "Installing: ${missing[*]}"
  "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 -qq update
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -o DPkg::Lock::Timeout=300 -qq install -y "${missing[@]}" >/dev/null
  has_cmake && exit 0
  echo "The system's CMake is older than 3.25, which the presets need:  python3 -m pip install cmake" >&2
  exit 1
fi
{
  echo "Missing: ${missing[*]}"
  echo "Debian, Ubuntu:  sudo apt-get install ${missing[*]}"
  echo "Fedora:          sudo dnf install gcc-c++ cmake ninja-build json-devel cli11-devel fmt-devel gtest-devel"
  echo "macOS:           brew install cmake ninja nlohmann-json cli11 fmt googletest"
} >&2
exit 1
