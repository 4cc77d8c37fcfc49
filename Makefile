# Every target does its own set-up; a second call does not install again.
PY := .venv/bin/python
SOURCES := common ann export backends energy cli

.PHONY: help demo test test-full bench lint clean

help:
	@echo "make demo       train sparse and dense, convert, run on native, Brian2 and Lava, reconcile the counts (runs/demo/)"
	@echo "make test       lint, types, import rules and the test suite (under 15 minutes on 2 cores)"
	@echo "make test-full  the slow checks too"
	@echo "make bench      training and backends against the alternatives, results to benchmarks/results/"
	@echo "make clean      remove the virtual environment and caches"

demo: .venv/installed-all
	$(PY) -m sparsespike.cli demo --out runs/demo

test: lint
	$(PY) -m pytest -q -m "not full" --durations=10

test-full: lint
	$(PY) -m pytest -q --durations=20

lint: .venv/installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports

bench: .venv/installed-dev
	$(PY) benchmarks/training.py
	$(PY) benchmarks/backends.py

# The stamps are written last, so an interrupted installation is taken up again.
.venv/installed-all: pyproject.toml setup.py tools/make_venv.sh $(wildcard backends/native/simd*)
	tools/make_venv.sh
	$(PY) -m pip install --disable-pip-version-check -q -e '.[all]'
	touch $@

.venv/installed-dev: .venv/installed-all
	$(PY) -m pip install --disable-pip-version-check -q -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
