# Every target does its own set-up; a second call does not install again.
# VERSION is the Python of the environment: 3.10 holds everything, with Lava; on another, Lava runs in the environment of 3.10.
VERSION := 3.10
VENV := .venv$(if $(filter-out 3.10,$(VERSION)),-$(VERSION))
PY := $(VENV)/bin/python
SOURCES := common ann export backends energy sweeps cli

.PHONY: help demo test test-full test-3.12 suite docs bench lint clean

help:
	@echo "make demo       train sparse and dense, convert, run on native, Brian2 and Lava, reconcile the counts (runs/demo/)"
	@echo "make test       lint, types, import rules, documentation and the test suite (under 15 minutes on 2 cores)"
	@echo "make test-full  the slow checks too"
	@echo "make test-3.12  the test suite on Python 3.12, with Lava in the environment of 3.10"
	@echo "make docs       the documentation as HTML (docs/_build/html); any warning is an error"
	@echo "make bench      training and backends against the alternatives, results to benchmarks/results/"
	@echo "make clean      remove the virtual environments and caches"

demo: $(VENV)/installed-all
	$(PY) -m sparsespike.cli demo --out runs/demo

test: lint docs suite

suite: $(VENV)/installed-dev
	$(PY) -m pytest -q -m "not full" -n 2 --dist loadfile --durations=10

test-3.12: .venv/installed-all
	SPARSESPIKE_LAVA_PYTHON=$(CURDIR)/.venv/bin/python $(MAKE) suite VERSION=3.12

test-full: lint docs
	$(PY) -m pytest -q --durations=20

lint: $(VENV)/installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m mypy examples/*.py
	$(VENV)/bin/lint-imports

docs: $(VENV)/installed-dev
	$(PY) -m sphinx -W --keep-going -q -b html docs docs/_build/html

bench: $(VENV)/installed-dev
	$(PY) benchmarks/training.py
	$(PY) benchmarks/backends.py

# The stamps are written last, so an interrupted installation is taken up again.
$(VENV)/installed-all: pyproject.toml setup.py tools/make_venv.sh $(wildcard backends/native/simd*)
	tools/make_venv.sh $(VERSION) $(VENV)
	$(PY) -m pip install --disable-pip-version-check -q -e '.[all]'
	touch $@

$(VENV)/installed-dev: $(VENV)/installed-all
	$(PY) -m pip install --disable-pip-version-check -q -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-* build docs/_build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
