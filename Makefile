PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal --durations 10

.PHONY: help env demo test slow sweep lint docs clean

help:  ## say what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

env: $(VENV)/installed  ## make the environment (torch is the large part)

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: env  ## train, adapt and test on data that needs no download
	$(BIN)/domainnorm run quickstart

test: env  ## each property, on a covering set of combinations
	$(PYTEST)

slow: env  ## the rest of each product, and what takes longest: whole runs, compilers, exports
	$(PYTEST) -m slow

sweep: env  ## every network of timm, through conversion and folding
	$(PYTEST) -m sweep

lint: env  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: env  ## write the site of the documentation to site/; broken links are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## remove the environment and caches
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache site
