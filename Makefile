# `make demo` and `make test` do everything on a fresh machine; the others are for work on the code.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS := $(shell $(PYTHON) -c 'import sys; print("constraints-3.10.txt" if sys.version_info < (3, 11) else "constraints.txt")')
WORKERS ?= 2
# Each test worker computes on one thread; more only get in each other's way. Bytecode is written even where the
# environment says otherwise: without it each worker compiles everything anew. It takes whole files, for the fixtures that
# their tests share, in the order of tests/conftest.py: long ones first.
TEST_ENV := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
PYTEST := $(TEST_ENV) $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered

.PHONY: demo test test-long test-all lint format docs bench weights env wheel clean

demo: weights
	$(BIN)/adaptiveisp demo --out demo-out --overwrite

test: env
	-$(BIN)/adaptiveisp weights get yolov3-tiny
	$(PYTEST) -m "not long" --cov-fail-under=93

# Only the long ones, after `make test`, whose coverage they add to.
test-long: env
	$(PYTEST) --cov-append -m long --cov-fail-under=95

test-all: env
	-$(BIN)/adaptiveisp weights get yolov3-tiny
	$(PYTEST) --cov-fail-under=95

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: env
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site

bench: weights
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[bench]'
	$(BIN)/adaptiveisp bench
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/denoise.py
	$(BIN)/python benchmarks/large_frames.py
	$(BIN)/python benchmarks/training_parts.py
	$(BIN)/python benchmarks/backward.py

weights: env
	$(BIN)/adaptiveisp weights get yolov3-tiny

env: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml runtime/pyproject.toml $(CONSTRAINTS) $(wildcard src/adaptiveisp/kernels/csrc/*)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "adaptiveisp needs Python 3.10 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]' -e ./runtime
	touch $@

# The source distribution and this platform's wheel, installed into a fresh environment and tried from another folder.
wheel: env
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) build
	rm -rf dist $(VENV)-wheel
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv $(VENV)-wheel
	$(VENV)-wheel/bin/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) "$$(ls dist/*.whl)[raw]"
	$(VENV)-wheel/bin/python tools/smoke.py

clean:
	rm -rf $(VENV) $(VENV)-wheel build dist site demo-out src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage
