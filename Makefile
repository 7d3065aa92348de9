# Every target sets up what it needs in .venv: `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
TORCH ?= torch==2.13.0
PYTEST_ARGS ?=
BENCH_ARGS ?=
CUDA_HOME ?= /usr/local/cuda
TORCH_CUDA ?= torch==2.11.0

BIN := .venv/bin
BENCH := .venv-bench
SOURCES := $(shell find csrc mcfa_fast build_support -name '*.cpp' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' -o -name '*.py' -o -path '*/templates/*')

.PHONY: demo test test-peers lint bench bench-aid bench-index bench-import develop cuda-build clean

demo: .venv/installed
	cd .venv && bin/mcfa-fast demo

# From the tests' own folder, so that the installed wheel is tested and not the sources beside it.
test: .venv/tools
	cd tests && ../$(BIN)/python -m pytest -c ../pyproject.toml --rootdir .. . --pyargs mcfa_fast $(PYTEST_ARGS)

lint: .venv/tools
	$(BIN)/ruff check .
	$(BIN)/mypy

# Ten minutes or so; on an otherwise idle machine.
bench: $(BENCH)/installed
	$(BENCH)/bin/python benchmarks/run.py $(BENCH_ARGS)

# The drop-in losses against all the libraries that they stand in for; `make test` has some of these.
test-peers: $(BENCH)/installed
	cd tests && ../$(BENCH)/bin/python -m pytest -c ../pyproject.toml --rootdir .. test_compat_libraries.py test_compat_ranks.py

# Accuracy on AID, in ../shared/data/aid: hours on two cores; finished parts are kept.
bench-aid: .venv/installed
	benchmarks/aid.sh

# Ten minutes or so: nearest of a million classes.
bench-index: .venv/tools
	$(BIN)/python benchmarks/latent_index.py

# What importing the package costs over importing PyTorch.
bench-import: .venv/installed
	$(BIN)/python benchmarks/import_time.py

# For work on the library: the package in .venv is the source tree itself.
develop: .venv/torch
	$(BIN)/pip install --no-build-isolation --editable ".[test]"

# The whole extension with its CUDA kernels, against a CUDA build of PyTorch, on a machine that needs no GPU: compiled,
# linked, imported, and its kernels found registered. PyTorch's packages bring the headers of the CUDA libraries.
CUDA_BIN := .venv-cuda/bin
cuda-build: .venv-cuda/torch
	libraries=$$($(CUDA_BIN)/python -c "import nvidia.cu13 as cuda; print(list(cuda.__path__)[0])"); \
	ln -sf libcudart.so.13 $$libraries/lib/libcudart.so; \
	CUDA_HOME=$(CUDA_HOME) CPATH=$$libraries/include LIBRARY_PATH=$$libraries/lib MCFA_FAST_CUDA=on \
	$(CUDA_BIN)/python setup.py build_ext --build-temp build/cuda --build-lib build/cuda/lib
	$(CUDA_BIN)/python build_support/check_cuda.py build/cuda/lib

.venv-cuda/torch:
	$(PYTHON) -m venv .venv-cuda
	$(CUDA_BIN)/pip install $(TORCH_CUDA) "setuptools>=77" ninja pybind11 numpy
	touch $@

.venv/torch $(BENCH)/torch:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install $(TORCH)
	$(@D)/bin/pip install "setuptools>=77" ninja pybind11
	touch $@

# A wheel of the source distribution, so that all who install it get what has been tested.
build/dist/built: .venv/torch setup.py pyproject.toml $(SOURCES)
	rm -rf build/dist
	$(BIN)/python -c 'from setuptools import build_meta; build_meta.build_sdist("build/dist")'
	$(BIN)/pip wheel --no-build-isolation --no-deps --wheel-dir build/dist build/dist/*.tar.gz
	touch $@

# What is installed already stays: all but the package itself.
.venv/installed: build/dist/built
	$(BIN)/pip install --no-deps --force-reinstall build/dist/*.whl
	$(BIN)/pip install $(TORCH) "mcfa_fast[all]"
	touch $@

.venv/tools: .venv/installed
	$(BIN)/pip install $(TORCH) "mcfa_fast[test]"
	touch $@

# The libraries that the benchmarks compare with bring others that .venv is kept free of. One of these, torchvision, has no
# build for each PyTorch: where it does not load, what only looks for it fails, and no loss needs it.
$(BENCH)/installed: $(BENCH)/torch build/dist/built
	$(BENCH)/bin/pip install --no-deps --force-reinstall build/dist/*.whl
	$(BENCH)/bin/pip install $(TORCH) "mcfa_fast[bench]"
	$(BENCH)/bin/pip uninstall --yes torchvision
	touch $@

clean:
	rm -rf .venv .venv-cuda $(BENCH) build dist *.egg-info
