# Each target makes its own virtual environment and installs what it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Workers take whole files, the longest first (tests/conftest.py says which).
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

.PHONY: demo test test-all test-airflow check bench docs pages findings clean
.DEFAULT_GOAL := demo

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(STAMP)  ## make a synthetic tenant, build it, show recommendations
	$(BIN)/nextedge demo demo

test: $(STAMP)  ## all tests but the slow ones, in at most 12 minutes on two cores
	$(PYTEST) -m "not slow"

test-all: $(STAMP)  ## all tests
	$(PYTEST)

test-airflow: $(STAMP) .venv-airflow/.installed  ## the daily run on Airflow, which needs an environment of its own
	NEXTEDGE_AIRFLOW=.venv-airflow/bin/python $(BIN)/python -m pytest tests/e2e/test_daily.py

.venv-airflow/.installed: deploy/airflow/requirements.txt
	$(PYTHON) -m venv .venv-airflow
	.venv-airflow/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

check: $(STAMP)  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## figures, printed as ratios and written under bench/
	$(BIN)/python bench/two_hop/run.py
	$(BIN)/python bench/plan/measure.py
	$(BIN)/python bench/plan/check.py --ship

docs: $(STAMP)  ## the documentation site, in site/; warnings and broken links are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

pages: $(STAMP)  ## generated pages and tables in docs/: settings, commands, features, results, scale
	$(BIN)/python docs/generate.py

findings: ## behaviour of public libraries that we found; needs the network
	for finding in findings/*.sh; do bash $$finding || exit 1; done

clean:
	rm -rf $(VENV) .venv-airflow demo site
