.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?=
BIN := .venv/bin
READY := .venv/.ready

# Without kept bytecode every process would compile MLflow and Ray anew: 5 s and more, each time.
unexport PYTHONDONTWRITEBYTECODE

help:  ## Show what there is to do
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | column -t -s '|'

$(READY): requirements/dev.txt pyproject.toml
	@test -x $(BIN)/uv || requirements/environment $(PYTHON)
	VIRTUAL_ENV=.venv $(BIN)/uv pip sync --quiet --require-hashes requirements/dev.txt
	VIRTUAL_ENV=.venv $(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $@

demo: $(READY)  ## The whole main job on the real dataset, then a report (ARGS="--synthetic" without a download)
	$(BIN)/health-predict demo $(ARGS)

test: lint  ## Lint, types, import contracts, all tests
	POLARS_MAX_THREADS=1 $(BIN)/pytest -n 4 --dist loadfile --no-loadscope-reorder -m "" $(ARGS)  # many tests wait for processes

seeds: $(READY)  ## As many simulated hospitals as SEEDS says, one seed each: over night, 100000
	POLARS_MAX_THREADS=1 HEALTH_PREDICT_SEEDS=$(or $(SEEDS),20000) $(BIN)/pytest -n 2 -m "" tests/stateful/test_seeds.py

lint: $(READY)  ## Ruff, mypy, import-linter, deptry
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/deptry src
	$(BIN)/deptry --ignore DEP002,DEP004 tests tests/functional tests/stateful benchmarks

bench: $(READY)  ## Measure training, serving, batch and drift against the usual routes; writes docs/performance.md
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.batch
	$(BIN)/python -m benchmarks.drift

mutate: $(READY)  ## Count the changes to the modules that decide which no test notices (MODULE=gate: one of them)
	$(BIN)/python -m benchmarks.mutation $(MODULE)

fields: $(READY)  ## Write docs/fields.md anew from the schema
	$(BIN)/python -m health_predict.reports.fields_page > docs/fields.md

serve: $(READY)  ## Answer over HTTP with the model in production (PORT=8000)
	$(BIN)/health-predict serve --port $(or $(PORT),8000)

lock: COMPILE := VIRTUAL_ENV=.venv $(BIN)/uv pip compile pyproject.toml --generate-hashes --no-header --quiet
lock: $(READY)  ## Resolve requirements/ anew from pyproject.toml
	$(COMPILE) --all-extras --group dev -o requirements/dev.txt
	for extra in pipeline serving; do $(COMPILE) --extra $$extra -c requirements/dev.txt -o requirements/$$extra.txt; done
	echo uv | $(subst pyproject.toml,-,$(COMPILE)) -c requirements/dev.txt -o requirements/uv.txt

clean:  ## Remove the environment and caches, not the data
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

.PHONY: help demo test seeds lint bench mutate fields serve lock clean
