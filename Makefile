# fedmer: every target sets up what it needs; 'make help' lists them.

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup fit test test-slow lint docs bench deploy-demo clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(READY) ## Make .venv and install fedmer into it, with what tests and docs need

fit: $(READY) ## Train; options in ARGS, as in: make fit ARGS="--aggregator FedProx"
	$(BIN)/fedmer fit $(ARGS)

test: $(READY) ## Run the quick tests
	$(BIN)/pytest -n auto $(ARGS)

test-slow: $(READY) ## Run the slow tests
	$(BIN)/pytest -n auto -m slow $(ARGS)

lint: $(READY) ## Check style, types, and that imports point one way
	$(BIN)/ruff check -q
	$(BIN)/ruff format -q --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

docs: $(READY) ## Build docs/_build/html; a warning is an error
	$(BIN)/sphinx-build -W -q docs docs/_build/html

bench: $(READY) ## Measure steps, rounds, growth, start-up on an idle machine
	for part in step round rules privacy scale start; do $(BIN)/python benchmarks/bench_$$part.py $(ARGS) || exit; done

deploy-demo: $(READY) ## A server and four nodes with TLS on this machine, beside the same run in-process
	PYTHONPATH=. $(BIN)/python experiments/deploy_demo.py $(ARGS)

clean: ## Remove what can be made again; .venv and runs stay
	rm -rf docs/_build dist .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fedmer needs Python 3.11 or newer; name one, as in: make PYTHON=python3.12 setup" >&2; exit 2; }
	@echo "Setting up .venv; this takes a minute or more, once."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[dev,docs,flower,privacy,tables]"
	@touch $@
