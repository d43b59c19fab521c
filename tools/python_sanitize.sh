#!/usr/bin/env bash
# The Python tests on an extension that is built with the address and undefined-behaviour sanitizers.
#   tools/python_sanitize.sh PYTHON [PYTEST-ARGUMENT...]
# Leaks are not looked for: the interpreter and PyTorch keep memory until the end on purpose.
set -euo pipefail

python=$1
shift
build=build-python-sanitize
rm -rf "$build/dist" "$build/site"
"$python" -m pip wheel -q --no-build-isolation --no-deps -w "$build/dist" -C "build-dir=$build/{wheel_tag}" \
  -C cmake.build-type=RelWithDebInfo -C cmake.define.FOURFOLD_SANITIZE=address,undefined .
"$python" -m pip install -q --no-deps --target "$build/site" "$build"/dist/fourfold-*.whl

# The interpreter is not built with them, so they are loaded before all else, and C++'s exceptions with them.
compiler=${CXX:-c++}
libraries=$(for name in libasan.so libubsan.so libstdc++.so; do "$compiler" -print-file-name="$name"; done | paste -sd:)
FOURFOLD_WHEEL=$(ls "$PWD/$build"/dist/fourfold-*.whl) PYTHONPATH=$PWD/$build/site LD_PRELOAD=$libraries \
  ASAN_OPTIONS=detect_leaks=0 "$python" -m pytest -q "$@"
