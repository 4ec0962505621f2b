# Thin: every target calls a script or a command that can also be run by hand.
PYTHON ?= python3
export PYTHON
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench soak format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## create .venv with everything pinned in constraints.txt; nothing to do when nothing changed
	@scripts/setup

demo: setup ## see it work, without a hub: mirror, pull, break, repair, load
	@$(BIN)/headrace demo

# Tests wait more than they compute: three at a time keep two processors busy. ARGS="-n 0 --pdb" for a debugger.
test: setup ## run the tests (ARGS="-k name" for some of them)
	@$(if $(ARGS),,$(BIN)/python -m pytest -q -m "alone and not soak")
	@$(BIN)/python -m pytest -n 3 --dist worksteal $(if $(ARGS),$(ARGS),-m "not alone and not soak")

check: setup ## lint, format, types, shape budget, import layers
	@scripts/check

bench: setup ## measure pulls, loads and nodes against others
	@scripts/peers
	@$(BIN)/python bench/pull.py $(ARGS)
	@$(if $(ARGS),,$(BIN)/python bench/mirrors.py && $(BIN)/python bench/start.py && $(BIN)/python bench/node.py && $(BIN)/python bench/loading.py && $(BIN)/python bench/eviction.py)

soak: setup ## run the long tests under faults, and those with all other clients
	@scripts/peers
	@$(BIN)/python -m pytest -m soak --timeout=3600 $(ARGS)

format: setup ## format the code and apply the safe fixes
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

clean: ## remove .venv, caches and build outputs
	@rm -rf .venv tests/clients/js/node_modules build dist .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
