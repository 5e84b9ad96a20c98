# Everything runs in .venv, which is set up when first needed and again when the requirements change.
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --constraint constraints.txt

.PHONY: run evidence test test-fast test-slow shapes fuzz fuzz-bytes kill-campaign ray-campaign campaigns lint types docs links format bench dist clean

run: .venv/.installed
	$(BIN)/wemem run studies/quickstart.toml --out runs/quickstart

# One thread per worker: tensors here are small, and threads of several workers would fight over the cores.
# A file's tests stay on one worker, so that it trains what they share only once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile

# Every test once: the quick ones with shapes checked, then the others.
test: .venv/.installed-dev
	$(MAKE) shapes
	$(MAKE) test-slow

# What to run while writing: everything but the tests that train or start processes.
test-fast: .venv/.installed-dev
	$(PYTEST) -m "not slow"

# The quick tests, with the shapes in all annotations of arrays checked at every call (tests/shapes.py).
shapes: .venv/.installed-dev
	$(PYTEST) -m "not slow" --jaxtyping-packages=wemem,shapes.check

test-slow: .venv/.installed-dev
	$(PYTEST) -m slow

# Damaged files for each reader: seconds in the tests, as long as you like here.
fuzz: .venv/.installed-dev
	OMP_NUM_THREADS=1 WEMEM_FUZZ=$(or $(N),1000) $(BIN)/pytest tests/test_untrusted_files.py

# The readers of binary files, N seconds each, guided by coverage (tests/fuzz_bytes.py).
fuzz-bytes: .venv/.installed-dev
	$(PIP) --quiet '.[fuzz]'
	OMP_NUM_THREADS=1 PYTHONPATH=src:tests $(BIN)/python tests/fuzz_bytes.py $(or $(N),60)

lint: .venv/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: .venv/.installed-dev
	$(BIN)/mypy

docs: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build --quiet --fail-on-warning --builder html docs docs/_build/html

# Links from the site to other sites; needs a network, so it is no part of CI.
links: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build --quiet -D plot_gallery=0 --builder linkcheck docs docs/_build/links

# The comparisons of the evidence page, a night on two cores; the same command goes on where it was stopped.
evidence: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.evidence $(STUDIES)

format: .venv/.installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# Commands are killed N times at random; SEED draws other times.
N ?= 100
kill-campaign: .venv/.installed-dev
	PYTHONPATH=tests $(BIN)/python tests/kill_campaign.py $(N) $(SEED)

# Kills, faults of files and injections, N times as many as the test suite tries.
campaigns: .venv/.installed-dev
	WEMEM_CAMPAIGN=$(N) $(BIN)/pytest tests/test_campaigns.py

# Workers, nodes and drivers of a Ray of five nodes are killed N times; SEED draws other times.
ray-campaign: .venv/.installed-dev
	PYTHONPATH=tests $(BIN)/python tests/ray_campaign.py $(N) $(SEED)

bench: .venv/.installed
	set -e; for script in $(sort $(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script; done

# The release as users get it: built, checked, and tried in an environment that has nothing else.
dist: .venv/.installed-dev
	$(PIP) '.[release]'
	rm -rf dist build/smoke
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m venv build/smoke
	build/smoke/bin/python -m pip install --constraint constraints.txt dist/*.whl
	build/smoke/bin/wemem --version
	build/smoke/bin/wemem run studies/smoke.toml --out build/smoke/run

clean:
	rm -rf .venv build dist docs/_build docs/gallery runs/quickstart .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[auto]'
	touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[dev]'
	touch .venv/.installed $@
