# Both `make demo` and `make test` set up all that they need, and reuse it the next time.
SHELL := /bin/bash
PYTHON := .venv/bin/python

.PHONY: help setup demo test lint bench lock clean
.DEFAULT_GOAL := help

help: ## Show this.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup: ## Install what demo and tests need (apt packages, .venv, Go, step-ca).
	@scripts/setup

demo: setup ## The main job in a throw-away folder. KEEP=1 leaves it up; OUTPUT=json.
	@$(PYTHON) scripts/demo.py $(if $(KEEP),--keep) $(if $(OUTPUT),--output $(OUTPUT))

test: setup ## The whole test suite. ARGS=… goes to pytest.
	@$(PYTHON) -m pytest $(ARGS)

lint: setup ## ruff, mypy --strict, the import contract.
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/mypy benchmarks scripts/demo.py
	@.venv/bin/lint-imports

bench: setup ## The measured claims.
	@$(PYTHON) benchmarks/run.py $(ARGS)

lock: ## Make the lock files anew from pyproject.toml.
	@scripts/lock

clean: ## Remove the virtual environment and caches of this checkout.
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build *.egg-info
