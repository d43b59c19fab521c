# Thin: each target is a script or a preset. `make help` lists them.
JOBS := $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 2)
SECONDS ?= 60
export CTEST_PARALLEL_LEVEL := $(JOBS)
# Not from git, which fails in an archive or a tree of another owner: clang-format without files reads stdin.
FOLDERS := $(wildcard include src cli tests bench fuzz examples python/src)
SOURCES = $(shell find $(FOLDERS) -name '*.cpp' -o -name '*.h')

# The steps of `test` build on each other; the parallelism is inside them.
.NOTPARALLEL:

.PHONY: help demo charlm vad test release-test sanitize thread-sanitize checks bench fuzz soak lint format clean
.PHONY: wheel site minilm g2p analyze-models python-test python-sanitize bench-kernels test-aarch64 test-baseline bits
help: ## This list
	@grep -E '^[a-z0-9-]+:.*##' Makefile | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 18

demo: ## Build, and run the demonstration
	@tools/setup.sh build
	cmake --preset release -DFOURFOLD_TESTS=OFF
	cmake --build --preset release
	build/fourfold demo

# MODELS=... names the folder of the trained models, which are not in this repository.
MODELS ?= $(or $(FOURFOLD_MODELS),../shared/models)

charlm: ## A character model before and after: text, size, perplexity, time (examples/charlm)
	@tools/setup.sh build
	cmake --preset release -DFOURFOLD_TESTS=OFF
	cmake --build --preset release --target charlm
	build/examples/charlm $(MODELS)/charrnn_shakespeare

vad: ## Speech in a recording, with silero-vad's network (examples/vad)
	@tools/setup.sh build
	cmake --preset release -DFOURFOLD_TESTS=OFF
	cmake --build --preset release --target vad
	build/examples/vad $(MODELS)/silero_vad/model.safetensors $(MODELS)/silero_vad/test.wav

test: ## Everything that CI runs: tests, sanitizers, checks
	@tools/setup.sh test
	$(MAKE) --no-print-directory release-test checks python-test sanitize
	$(MAKE) --no-print-directory fuzz SECONDS=20

release-test:
	cmake --preset release -DFOURFOLD_TESTS=ON
	cmake --build --preset release
	ctest --preset release

checks: ## Include directions, symbols of instruction-set files, formatting
	python3 tools/check_includes.py
	python3 tools/check_isa_symbols.py build
	clang-format --dry-run --Werror $(SOURCES)

sanitize: ## The tests under the address and undefined-behaviour sanitizers
	cmake --preset sanitize
	cmake --build --preset sanitize
	ctest --preset sanitize

thread-sanitize: ## The tests under the thread sanitizer
	@tools/setup.sh test
	cmake --preset thread-sanitize
	cmake --build --preset thread-sanitize
	ctest --preset thread-sanitize

test-aarch64: ## The tests built for AArch64, and run by qemu
	@tools/setup.sh test-aarch64
	cmake --preset aarch64
	cmake --build --preset aarch64
	python3 tools/check_isa_symbols.py build-aarch64
	ctest --preset aarch64

test-baseline: ## The tests run by qemu on an x86-64 CPU without AVX
	@tools/setup.sh test-baseline
	cmake --preset baseline
	cmake --build --preset baseline
	ctest --preset baseline

bits: ## The golden bits in every build: g++ and clang++, -O0 and -O3, x86-64 and AArch64, every instruction set
	@tools/setup.sh bits
	tools/bits.py

# PYTHON=... uses an environment of yours, as it is; else .venv is made, and filled with what is missing.
PYTHON ?= .venv/bin/python

wheel: ## The Python package, as dist/fourfold-*.whl
	@tools/setup.sh build
	@tools/python_env.sh $(PYTHON) build
	rm -rf dist
	CMAKE_BUILD_PARALLEL_LEVEL=$(JOBS) $(PYTHON) -m pip wheel -q --no-build-isolation --no-deps -w dist .

site: wheel
	rm -rf build-python/site
	$(PYTHON) -m pip install -q --no-deps --target build-python/site dist/fourfold-*.whl

minilm: site ## Sentence embeddings before and after, beside its peers (examples/minilm)
	@tools/python_env.sh $(PYTHON) examples
	FOURFOLD_MODELS=$(abspath $(MODELS)) PYTHONPATH=build-python/site $(PYTHON) examples/minilm/minilm.py

g2p: site ## Spelling to phonemes on GRU cells, beside g2p_en's NumPy (examples/g2p)
	@tools/python_env.sh $(PYTHON) examples
	FOURFOLD_MODELS=$(abspath $(MODELS)) PYTHONPATH=build-python/site $(PYTHON) examples/g2p/g2p.py --measure 5000

analyze-models: site ## fourfold.analyze on the trained models, and whether its figures and its advice hold
	@tools/python_env.sh $(PYTHON) test
	PYTHONPATH=build-python/site $(PYTHON) tests/torch/compare_analyze.py --models $(MODELS)

python-test: ## The wheel's tests, in an environment with PyTorch 2.13 and in one with NumPy alone
	@if tools/python_env.sh $(PYTHON) test; then tools/python_test.sh $(PYTHON); \
	else echo "python-test: SKIPPED, for the reason above"; fi

python-sanitize: ## The Python tests, with the sanitizers of `sanitize` in the extension
	@tools/setup.sh test
	@tools/python_env.sh $(PYTHON) test
	tools/python_sanitize.sh $(PYTHON)

bench: wheel ## fourfold beside its peers, on one thread and two, with the machine's limits; figures and a picture in build-bench
	@tools/setup.sh bench
	@tools/python_env.sh $(PYTHON) bench
	cmake --preset bench
	cmake --build --preset bench
	rm -rf build-python/bench-site
	$(PYTHON) -m pip install -q --no-deps --target build-python/bench-site dist/fourfold-*.whl
	PYTHONPATH=build-python/bench-site $(PYTHON) bench/compare.py --limits build-bench/bench/limits --native build-bench/bench/native \
	  --json build-bench/bench.json --picture build-bench/bench.svg

bench-kernels: ## Every kernel of every instruction set that the machine has
	@tools/setup.sh bench
	cmake --preset bench
	cmake --build --preset bench
	build-bench/bench/kernels_bench

fuzz: ## Each fuzz target for SECONDS=60 seconds
	@tools/setup.sh fuzz
	cmake --preset fuzz
	cmake --build --preset fuzz
	build-fuzz/fuzz/seeds build-fuzz/corpus
	tools/fuzz.py --seconds $(SECONDS)

soak: ## Minutes of load: many threads, models, steps and forks; memory and throughput
	@tools/setup.sh test
	cmake --preset release -DFOURFOLD_TESTS=ON
	cmake --build --preset release --target soak
	build/tests/soak

lint: ## clang-tidy over the library, the command line and the examples
	@tools/setup.sh lint
	cmake --preset release
	find src cli examples -name '*.cpp' | xargs -P $(JOBS) -n 2 clang-tidy -p build --quiet

format: ## Format all sources
	@tools/setup.sh lint
	clang-format -i $(SOURCES)

clean: ## Remove what was built
	rm -rf build build-* dist
