#!/usr/bin/env bash
# Builds the wheel and tests it: types, style, all of python/tests, and a run where there is NumPy alone.
#   tools/python_test.sh PYTHON
set -euo pipefail

python=$1
"$python" -m ruff check -q python examples bench tests/golden
"$python" -m ruff format -q --check python examples bench tests/golden
"$python" -m mypy

make --no-print-directory wheel PYTHON="$python"
site=build-python/site
rm -rf "$site"
"$python" -m pip install -q --no-deps --target "$site" dist/fourfold-*.whl

# The C++ results to compare with; without a build of the tests, those that need it say that they are skipped.
[ -d build ] && cmake --build build --target dump_golden >/dev/null 2>&1 || true
FOURFOLD_WHEEL=$(ls "$PWD"/dist/fourfold-*.whl) PYTHONPATH=$PWD/$site "$python" -m pytest -q
