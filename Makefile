# Everything a newcomer runs. Each target sets up what it needs; the second run finds it done.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test containers bench crashes chaos mutants check lint types imports setup audit sbom lock clean

demo: setup            ## the support desk: real servers, a real worker, injected faults
	@$(BIN)/surefoot-worker demo $(ARGS)

test: setup            ## the whole suite, on real servers; it waits more than it works, so three files go on at once
	@$(BIN)/python -m pytest -n 3 --dist loadfile --ignore tests/containers $(ARGS)

containers: setup      ## the image and the compose files on a Docker engine; skipped, and said, where there is none
	@$(BIN)/python -m pytest tests/containers $(ARGS)

bench: setup           ## every figure in docs/benchmarks.md, beside bare Celery in the same run
	@$(BIN)/python -m tests.benchmarks $(ARGS)

crashes: setup         ## a death at every point of a job's way, for every effect class, judged by the checker
	@$(BIN)/python -m tests.chaos.crashes $(ARGS)

chaos: setup           ## a seeded storm of faults at real processes under load, judged by the checker
	@$(BIN)/python -m tests.chaos.storm $(ARGS)

mutants: setup         ## deliberate defects, each played where it shows: the checker has to find every one
	@$(BIN)/python -m tests.chaos.mutants $(ARGS)

check: lint types imports

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup
	@$(BIN)/mypy

imports: setup         ## imports run one way: worker → tasks → producer
	@$(BIN)/lint-imports

audit: setup           ## what is known against our dependencies; exits with 3 where nobody can be asked
	@$(BIN)/python -m tests.audit

sbom: setup            ## sbom.json: what we depend on, as CycloneDX, from the lock file alone
	@$(BIN)/cyclonedx-py requirements requirements.lock --output-file sbom.json --validate \
	  && echo "sbom.json: $$($(BIN)/python -c 'import json; print(len(json.load(open("sbom.json"))["components"]))') components"

setup: $(STAMP)

# --no-deps and --no-build-isolation: nothing may come in that the lock file does not pin.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Surefoot needs Python 3.11 to 3.13; name one: make $(MAKECMDGOALS) PYTHON=python3.13"; exit 1; }
	@echo "Setting up $(VENV) (once; about a minute)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

lock:                  ## pin anew: names, versions, hashes; no addresses
	@uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-annotate --no-header --all-extras pyproject.toml -o requirements.lock

clean:
	@rm -rf $(VENV) .surefoot .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
