.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Hundreds of processes: each would compile the whole program again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup demo test vm-test vm-test-all deb deb-test lifecycles faults soak fuzz lint format bench bench-peer fleet coverage clean images wheels wheels-test audit requirements

help: ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(STAMP) ## Install system packages and prepare .venv with the three commands

$(STAMP): requirements.txt requirements-build.txt pyproject.toml agent/pyproject.toml scripts/install-system-packages.sh
	@scripts/install-system-packages.sh
	@scripts/make-venv.sh "$(PYTHON)" "$(VENV)"
	@touch $@

demo: setup ## Three guests with software TPMs against a fresh verifier (KEEP=1 leaves it running)
	@$(BIN)/python -m scripts.demo $(if $(KEEP),--keep)

test: setup lint ## Everything CI runs
	@scripts/install-system-packages.sh test
	@$(BIN)/python -m pytest -n 2 --dist worksteal tests --ignore tests/browser
	@scripts/install-system-packages.sh deb && scripts/install-system-packages.sh vm || true
	@# Guests boot on the core that the browser leaves idle.
	@mkdir -p build; $(BIN)/python -m tests.vm --may-skip >build/vm-test.log 2>&1 & guests=$$!; trap "kill $$guests" INT TERM; \
		$(BIN)/python -m pytest tests/browser; browser=$$?; \
		wait $$guests; booted=$$?; cat build/vm-test.log; [ $$browser = 0 ] && [ $$booted = 0 ]

coverage: setup ## The tests once more, with what they reach held against its floors (a third slower than without)
	@scripts/install-system-packages.sh test
	@$(BIN)/python -m pytest -n 2 --dist worksteal --cov --cov-report= tests --ignore tests/browser
	@$(BIN)/python scripts/coverage_gate.py

vm-test: setup ## Guests that really boot, judged from outside: the good one and three tampered ones (ONLY="kernel initrd" chooses)
	@scripts/install-system-packages.sh deb && scripts/install-system-packages.sh vm
	@$(BIN)/python -m tests.vm $(ONLY) $(if $(JSON),--json)

vm-test-all: setup ## Every scenario of guests that really boot (JSON=1 prints one document)
	@scripts/install-system-packages.sh deb && scripts/install-system-packages.sh vm
	@$(BIN)/python -m tests.vm --all $(if $(JSON),--json)

lifecycles: setup ## 10,000 simulated lives of machines and 2,000 clones and rollbacks (make test lives a share of them)
	@$(BIN)/python -m tests.lifecycles $(if $(FIRST),--first $(FIRST))

faults: setup ## A fleet that attests while processes, database, disk and clock fail (make test has a share of it)
	@scripts/install-system-packages.sh test
	@$(BIN)/python -m pytest tests/faults -m "slow or not slow" --timeout 1800 $(ARGS)

soak: setup ## Everything at once for an hour, with flat memory and file handles (MINUTES=2; DATABASE=postgresql)
	@$(BIN)/python -m tests.faults.soak $(if $(MINUTES),--minutes $(MINUTES)) $(if $(DATABASE),--database $(DATABASE))

fuzz: setup ## Look for inputs that break a parser, with coverage as guide (SECONDS=300 for each; ONLY="attest ima"; CORPUS=folder)
	@scripts/fuzz.sh $(VENV) $(ONLY) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(CORPUS),--corpus $(CORPUS))
	@$(if $(ONLY),true,$(BIN)/python -m tests.stateful $(if $(SECONDS),--seconds $(SECONDS)))

lint: setup ## ruff, mypy --strict, import layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/mypy --platform win32 --no-error-summary -p agent
	@$(BIN)/lint-imports --no-cache

format: setup ## Apply the formatter and safe fixes
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: setup ## Table of costs against the bare operation; writes build/bench.json
	@$(BIN)/python -m tests.bench

bench-peer: setup ## Keylime's verifier and ours on the same evidence, side by side (Keylime in an environment of its own)
	@scripts/install-system-packages.sh peer
	@$(BIN)/python -m tests.bench.peer --python "$(PYTHON)"

fleet: setup ## A verifier under the load of simulated guests (ARGS="--guests 500 --workers 2 --database postgresql")
	@$(BIN)/python -m tests.bench.fleet $(ARGS)

wheels: ## Reproducible wheels with their bill of materials, into dist/
	@PYTHON="$(PYTHON)" scripts/build-wheels.sh dist

wheels-test: setup ## Build the wheels twice and compare them; install and run them
	@$(BIN)/python -m pytest tests/supply -m slow

audit: ## Ask advisory databases about what is carried (2: none could be asked)
	@PYTHON="$(PYTHON)" scripts/audit.sh

images: setup ## Build the images of docker/ without a container engine, and run them (needs root; Debian's buildah and podman)
	@scripts/install-system-packages.sh images
	@$(BIN)/python -m pytest tests/images -m slow $(ARGS)

requirements: ## Recompile the pinned, hashed requirements from the .in files
	@scripts/compile-requirements.sh

deb: setup ## Debian package of the agent, build/*.deb; read by lintian
	@scripts/install-system-packages.sh deb
	@deb=$$(scripts/build-deb.sh $(VENV)) && lintian --fail-on error,warning --allow-root "$$deb" && echo "$$deb"

deb-test: setup ## The package in a fresh Debian: installed, used, updated, purged; and booted with its systemd
	@scripts/install-system-packages.sh deb
	@$(BIN)/python -m pytest -m slow tests/packages

clean: ## Remove what these commands made
	rm -rf $(VENV) build .demo .mypy_cache .ruff_cache .pytest_cache
