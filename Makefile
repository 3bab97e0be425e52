# make        install into .venv, run the two scenarios, leave their figures and data in results/
# make test   install what tests need, run ruff, mypy and pytest
# make docs   build the documentation into docs/_build/html
# make external  test the attacks against Foolbox, the Adversarial Robustness Toolbox and CVXPY
# make bench  measure speed, side by side with other solvers, and rewrite docs/benchmarks.md

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := scenarios
.PHONY: scenarios test external docs bench clean

scenarios: .venv/installed
	$(BIN)/python -m studies run scenario1 scenario2 --out results

test: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

external: .venv/installed-external
	$(BIN)/python -m pytest tests/external

docs: .venv/installed-docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

bench: .venv/installed-benchmark
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv results docs/_build

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) --editable '.[data]'
	@touch $@

.venv/installed-%: .venv/installed pyproject.toml constraints.txt
	$(PIP) --editable '.[deep]' --group $*
	@touch $@
