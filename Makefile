# Two commands set everything up on a bare machine: `make demo` and `make test`. Both make .venv if it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check lint types test-slow real fuzz build clean

demo: $(VENV)/.installed
	$(BIN)/trocar demo --out demo

# Two processes of one thread each: threads of several processes that share cores slow each other down. One that dies
# ends the run: with another in its place pytest-xdist 3.8 never ends, as tests that go by file are lost with it.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile --max-worker-restart 0

# What CI runs; the tests last, so that their closing lines end what is printed.
check: lint types
	$(BIN)/trocar demo --out "$$(mktemp -d)/demo"
	$(MAKE) test

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow --timeout=3600

# 20,000 spoilt inputs of every layout, then 2,000 videos; what ends badly is kept. FUZZ="--seed 7" draws other inputs.
fuzz: $(VENV)/.installed-dev
	$(BIN)/python tests/fuzz/fuzz_video.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/fuzz_run.py --cases 20000 $(FUZZ)

real: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m real

build: $(VENV)/.installed-dev
	$(BIN)/python -m build

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "trocar needs Python 3.11 or newer: make PYTHON=python3.12 demo")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,export,keras]'
	touch $@

clean:
	rm -rf $(VENV) demo runs report dist build fuzz-found .pytest_cache .mypy_cache .ruff_cache
