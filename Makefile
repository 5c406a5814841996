# The verbs of this repository. `make demo` and `make test` need git, make, Python 3.11 and apt; they set up the rest.
.PHONY: setup demo canary test test-all deb image chaos check bench clean
BIN := .venv/bin
PATHS := dmpd tests

setup: ## Debian packages (when root), .venv, Kafka's jars: only what is missing
	@packaging/setup.sh

demo: setup ## the whole platform with a live view; ONCE=1 runs it through all faults without a person and judges
	@$(BIN)/dmpd lab up --raes 5 --devices 40 $(if $(filter-out 0,$(ONCE)),--once,--watch)

canary: setup ## the flash crowd over a lab, and its verdict; CLIENTS=3000, RAMP=linear, step or herd
	@$(BIN)/dmpd lab up --no-lan --canary --clients $(or $(CLIENTS),3000) --ramp $(or $(RAMP),linear)

test: setup ## everything but what is too long for every run; four at a time, because most of them wait
	@packaging/test.sh "not slow" 4

test-all: ## what is too long for every run; three at a time
	@packaging/setup.sh deb image
	@packaging/test.sh slow 3

deb: ## the Debian package dmpd-local-registry into build/deb; ARCH=arm64 for the other architecture
	@packaging/setup.sh deb
	@packaging/deb.sh $(ARCH)

chaos: setup ## ten minutes of kills, freezes and cuts of bridge, broker and Kafka, ten of access; CHAOS_SEED=n repeats
	@CHAOS_S=$(or $(CHAOS_S),600) $(BIN)/python -m pytest -s tests/integration/test_bridge_chaos.py
	@CHAOS_S=$(or $(CHAOS_S),600) $(BIN)/python -m pytest -s tests/integration/test_access_chaos.py

image: setup ## the image dmpd:latest; TAG, BASE (another base image), CA (certificates for PyPI), DOCKER (the client)
	@packaging/image.sh $(TAG)

check: setup ## format, lint, types, layers
	@$(BIN)/ruff format --check $(PATHS)
	@$(BIN)/ruff check $(PATHS)
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: setup ## figures of the parts, NAME=model for one of them, ARGS for it; tables, and build/bench/NAME.json
	@set -e; for script in tests/bench/bench_$(or $(NAME),*).py; do PYTHONPATH=. $(BIN)/python "$$script" $(ARGS); done

clean: ## ends the lab and removes what setup and the tools made (downloads in .cache stay)
	@if [ -x $(BIN)/dmpd ]; then $(BIN)/dmpd lab down || true; fi
	@rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find dmpd tests -name __pycache__ -type d -prune -exec rm -rf {} +
