# make          install into .venv, run the two scenarios, leave their figures and data in results/
# make quick    within a minute: ruff, mypy, and the tests that most changes can break
# make test     install what tests need, run ruff, mypy and pytest
# make whole    the same, and every study in its quick form: ten minutes more
# make spelling check the spelling, and the form of the Markdown pages
# make lowest   the tests of the theory on the oldest versions that pyproject.toml allows, in .venv-lowest
# make docs     build the documentation into docs/_build/html
# make external test the attacks against Foolbox, the Adversarial Robustness Toolbox and CVXPY
# make bench    measure speed, side by side with other solvers, and rewrite docs/benchmarks.md
# make cuda     on a GPU: run what is not yet recorded, as the time allows (MINUTES=9 OUT=results/cuda CARDS="tests speed")
# make cuda-bundle  pack what a bare machine lacks, in two parts of 64 MiB (PART=1, PART=2): see docs/cuda.md

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
EXE := $(if $(filter Windows_NT,$(OS)),.exe)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)
QUICK := tests/test_architecture.py tests/odeflow \
  $(addprefix tests/deepcheck/test_,norms.py objectives.py metrics.py curves.py methods.py checkpoint.py every_attack.py)

.DEFAULT_GOAL := scenarios
.PHONY: scenarios quick test whole check spelling lowest lowest-tests external docs bench cuda cuda-bundle clean

scenarios: $(VENV)/installed
	$(BIN)/python -m studies run scenario1 scenario2 --out results

quick: check
	$(BIN)/python -m pytest -q -m "not slow" $(QUICK)

test: check
	$(BIN)/python -m pytest -m "not whole"

whole: check
	$(BIN)/python -m pytest

check: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

spelling: $(VENV)/installed-spelling
	$(BIN)/codespell
	$(BIN)/rumdl check .

lowest:
	$(PYTHON) .ci/lowest > lowest.txt
	$(MAKE) VENV=.venv-lowest CONSTRAINTS=lowest.txt lowest-tests

# -W default: old releases warn of the new releases of what they depend on
lowest-tests: $(VENV)/installed
	$(PIP) --group theory
	$(BIN)/python -m pytest -W default tests/test_packaging.py tests/odeflow tests/properties/test_integrate_against_scipy.py odeflow

external: $(VENV)/installed-external
	$(BIN)/python -m pytest tests/external

docs: $(VENV)/installed-docs
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/python .ci/offline docs/_build/html
	@echo docs/_build/html/index.html

bench: $(VENV)/installed-benchmark
	$(BIN)/python -m benchmarks

MINUTES ?= 9
OUT ?= results/cuda
PART ?= 1

cuda: $(VENV)/installed-test
	$(BIN)/python -m benchmarks.cuda --minutes $(MINUTES) --out $(OUT) $(if $(CARDS),--cards $(CARDS))

cuda-bundle: $(VENV)/installed-test
	$(BIN)/python -m benchmarks.cuda.bundle make --part $(PART)

clean:
	rm -rf .cuda-bundle .cuda-wheels .venv .venv-lowest lowest.txt results docs/_build

$(BIN)/python$(EXE):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'

$(VENV)/installed: $(BIN)/python$(EXE) pyproject.toml $(CONSTRAINTS)
	$(PIP) --editable '.[data]'
	@touch $@

$(VENV)/installed-%: $(VENV)/installed pyproject.toml $(CONSTRAINTS)
	$(PIP) --editable '.[deep]' --group $*
	@touch $@
