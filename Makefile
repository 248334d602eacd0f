PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help env demo test slow lint clean

help:  ## say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

env: $(VENV)/installed  ## make the environment (torch is the large part)

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: env  ## train, adapt and test on data that needs no download
	$(BIN)/domainnorm run quickstart

test: env  ## the default tests
	$(BIN)/python -m pytest -n auto --dist worksteal

slow: env  ## the tests that take longest: whole runs, compilers, exports
	$(BIN)/python -m pytest -n auto --dist worksteal -m slow

lint: env  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:  ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache
