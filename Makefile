# Each target makes its own virtual environment and installs what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check bench docs clean
.DEFAULT_GOAL := demo

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)  ## make a synthetic tenant, build it, show recommendations
	$(BIN)/nextedge demo demo

test: $(STAMP)  ## all tests
	$(BIN)/python -m pytest

check: $(STAMP)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## figures, printed as ratios and written under bench/
	$(BIN)/python bench/two_hop/run.py
	$(BIN)/python bench/plan/measure.py
	$(BIN)/python bench/plan/check.py --ship

docs: $(STAMP)  ## generated pages and tables: features, results, scale
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) demo
