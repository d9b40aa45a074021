# Needs Python ≥ 3.11 and make; `check` also needs Node's npx. Everything lands in .venv; `make clean` takes it away.

# The first Python that is new enough and can make environments. A name can exist and not run (pyenv's shims), so each is tried.
PYTHON ?= $(shell for python in python3.13 python3.12 python3.11 python3 python; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
NO_PYTHON = No Python 3.11 or newer that can make virtual environments was found. \
	Install one (Debian: apt install python3 python3-venv), or name it: make PYTHON=/path/to/python3

VENV := .venv
BIN := $(VENV)/bin
OPENSPEC := @fission-ai/openspec@1.13.2
DISTRIBUTIONS := core adapters/openai adapters/anthropic adapters/langchain adapters/llama-index adapters/api \
	adapters/datasette
PIP_INSTALL := $(BIN)/python -m pip install -qq --constraint constraints.txt --build-constraint constraints.txt

export OPENSPEC_TELEMETRY := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export npm_config_update_notifier := false

# Without a home to keep them in, caches and the demo's tape stay in the clone.
ifneq ($(shell test -d "$$HOME" && test -w "$$HOME" && echo home),home)
export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
export npm_config_cache := $(CURDIR)/.cache/npm
export XDG_DATA_HOME := $(CURDIR)/.cache/data
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test nightly check matrix bench cassettes pictures screenshots clean

help: ## list what make can do
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 18

demo: $(VENV)/runtime ## record real SDK streams from a local server, and show what the tape says
	@$(BIN)/tokentape demo $(ARGS)

# Half of the time tests wait for streams: three processes keep two cores busy.
test: $(VENV)/dev ## run the tests (ARGS="-k name" for some)
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile $(ARGS)

nightly: $(VENV)/dev ## run the tests that take long (ARGS="-k name" for some)
	@$(BIN)/python -m pytest -m nightly --verbose --capture no $(ARGS)

check: $(VENV)/dev ## lint, format, types, floors, specifications (needs npx)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@command -v npx >/dev/null || { echo "make check: npx was not found; install Node.js 20 or newer" >&2; exit 1; }
	npx --yes $(OPENSPEC) validate --all --strict

matrix: $(VENV)/dev ## run tests beside other versions of SDKs and frameworks (ARGS="-s oldest" for some)
	@$(BIN)/nox --noxfile tests/noxfile.py $(ARGS)

bench: $(VENV)/dev ## measure what recording costs (needs valgrind for the instruction counts)
	@$(BIN)/python tests/benchmarks $(ARGS)

cassettes: $(VENV)/dev ## record cassettes/ anew, from the local server
	@$(BIN)/python tests/record_cassettes.py $(ARGS)

pictures: $(VENV)/dev ## make the pictures of the documentation anew, from what the demo prints
	@$(BIN)/python tests/make_pictures.py

screenshots: $(VENV)/dev ## take the screenshots of the documentation anew, from the real pages (needs Chromium)
	@$(BIN)/python tests/make_screenshots.py

clean: ## remove .venv, caches and what was built
	rm -rf $(VENV) .nox .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	rm -rf $(foreach folder,$(DISTRIBUTIONS),$(folder)/dist $(folder)/build)
	find $(DISTRIBUTIONS) tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The two files below are stamps: made last, so that a failed installation is tried again.
$(VENV)/runtime: constraints.txt $(DISTRIBUTIONS:=/pyproject.toml)
	$(if $(PYTHON)$(wildcard $(BIN)/python),,$(error $(NO_PYTHON)))
	@echo "Installing into $(VENV); the first time this takes a minute."
	@test -x $(BIN)/python || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq "pip>=25.3"
	@$(PIP_INSTALL) $(foreach folder,$(DISTRIBUTIONS),--editable $(folder))
	@touch $@

$(VENV)/dev: $(VENV)/runtime pyproject.toml
	@echo "Installing the development tools into $(VENV)."
	@$(PIP_INSTALL) --group dev
	@touch $@
