.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
READY := .venv/.ready

# Without kept bytecode every process would compile MLflow and Ray anew: 5 s and more, each time.
unexport PYTHONDONTWRITEBYTECODE

help:  ## Show what there is to do
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | column -t -s '|'

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "Python 3.11 is needed; say where it is: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=.venv $(BIN)/uv pip sync --quiet --require-hashes requirements/dev.txt
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $@

demo: $(READY)  ## The whole main job on the real dataset, then a report (ARGS="--synthetic" without a download)
	$(BIN)/health-predict demo $(ARGS)

test: lint  ## Lint, types, import contracts, all tests
	$(BIN)/pytest -n 2 --dist worksteal -m "" $(ARGS)

lint: $(READY)  ## Ruff, mypy, import-linter
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## Measure training, serving, batch and drift against the usual routes; writes docs/performance.md
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.batch
	$(BIN)/python -m benchmarks.drift

mutate: $(READY)  ## Count the changes to the modules that decide which no test notices (MODULE=gate: one of them)
	$(BIN)/python -m benchmarks.mutation $(MODULE)

serve: $(READY)  ## Answer over HTTP with the model in production (PORT=8000)
	$(BIN)/health-predict serve --port $(or $(PORT),8000)

lock: $(READY)  ## Resolve requirements/ anew from pyproject.toml
	VIRTUAL_ENV=.venv $(BIN)/uv pip compile pyproject.toml --group dev --generate-hashes --no-header --quiet -o requirements/dev.txt
	for group in pipeline serving; do VIRTUAL_ENV=.venv $(BIN)/uv pip compile pyproject.toml --group $$group \
	  --generate-hashes --no-header --quiet -c requirements/dev.txt -o requirements/$$group.txt; done

clean:  ## Remove the environment and caches, not the data
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

.PHONY: help demo test lint bench mutate serve lock clean
