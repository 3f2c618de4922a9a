# The whole set-up, from a fresh clone: Python 3.11 or newer, make and a C compiler are enough.
#
#   make lab     JupyterLab on the first notebook        make lint    ruff, mypy
#   make test    every test                              make bench   tokens/s next to transformers
#
# PYTHON=…  the interpreter that makes .venv        ARGS=…  passed on to JupyterLab, pytest or the benchmark
# VENV=…    another place for the environment       PIP_ARGS=…  passed on to pip (an index, a proxy, …)

VENV ?= .venv
ARGS ?=
PIP_ARGS ?=
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt
FETCH := $(BIN)/workbench models fetch --quiet
INPUTS := $(VENV)/.made pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help lab test lint format bench docs clean
.NOTPARALLEL:

help: ## what each target does
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lab: $(VENV)/.lab ## set up, then open JupyterLab on the first notebook (ARGS="--no-browser --port 8899")
	@$(FETCH)
	$(BIN)/workbench lab $(ARGS)

test: $(VENV)/.test ## set up, then run every test (ARGS="-k scheduler")
	@$(FETCH)
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.lint ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.lint ## let ruff repair what it can
	$(BIN)/ruff check --fix .

bench: $(VENV)/.test ## tokens/s and GB/s next to transformers.generate
	@$(FETCH)
	$(BIN)/python -m benchmarks.throughput $(ARGS)

docs: $(VENV)/.test ## write the generated parts of the docs
	$(BIN)/python -m workbench._docs

clean: ## remove the environment and everything that was built
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp is written last, so a broken installation is tried again and a finished one costs nothing.
$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer with venv found: install one, or name it with make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.lab: $(INPUTS)
	$(PIP) -e ".[lab,data]"
	@touch $@

$(VENV)/.test: $(INPUTS)
	$(PIP) -e ".[test]"
	@touch $@

$(VENV)/.lint: $(INPUTS)
	$(PIP) -e ".[lint]"
	@touch $@
