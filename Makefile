# All commands for users and CI. Needs Python 3.11 to 3.13, make and git; the rest is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup extras repro ui test e2e faults mutants check readme pictures format lock clean

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## Install everything into .venv

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 to 3.13 is needed: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "setting up $(VENV): about 2 GB, some minutes"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@git rev-parse --git-dir >/dev/null 2>&1 || $(BIN)/dvc config --local core.no_scm true
	@touch $@

# Large optional packages. They are not in requirements.txt; shared dependencies have the same versions there.
EXTRAS := jax ray

extras: $(READY)  ## Install the optional packages: Ray for sweeps and many trainings at once, JAX for several devices
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-extras.txt

repro: $(READY)  ## Rebuild what is out of date, and print the table of results
	@tiny-imagenet check
	@touch $(VENV)/.started
	@dvc repro
	@test reports/results.csv -nt $(VENV)/.started || { tiny-imagenet sync && tiny-imagenet results; }

ui: $(READY)  ## Compare the runs in the browser (mlflow ui)
	@mlflow ui

test: $(READY)  ## Run the tests
	@python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

e2e: extras  ## Run the longer end-to-end tests: MLflow's pages and servers, DVC's experiments, several devices, JAX
	@sh tests/e2e/install.sh chromium chromium-driver postgresql
	@python -m pytest -n 2 --dist loadfile -m e2e

faults: extras  ## Kill stages, trainings and nodes of a Ray cluster at random moments; half an hour and more
	@python -m pytest -m faults

LIMIT := 40
SEED := 1

mutants: $(READY)  ## Plant faults in a room of src; list those that its tests miss (make mutants ROOM=evaluation LIMIT=40)
	@python -m benchmarks.mutants $(ROOM) --limit $(LIMIT) --seed $(SEED)

check: $(READY)  ## Check style, types, import layers, generated pages, and that the locks match pyproject.toml
	@ruff check .
	@ruff format --check .
	@mypy
	@lint-imports --no-cache
	@tiny-imagenet readme --check
	@$(LOCK_COMMAND) --quiet --output-file $(VENV)/lock.txt
	@$(LOCK_EXTRAS_COMMAND) --quiet --output-file $(VENV)/lock-extras.txt
	@versions() { grep -E '^[a-z0-9]' "$$1" | tr -d '\\'; }; \
		for name in "" -extras; do \
			versions requirements$$name.txt > $(VENV)/locked; versions $(VENV)/lock$$name.txt | diff $(VENV)/locked - || \
			{ echo "error: requirements$$name.txt does not match pyproject.toml; run make lock" >&2; exit 1; }; \
		done

readme: $(READY)  ## Update the generated pages: README's results, docs/results, docs/reference
	@tiny-imagenet readme

pictures: $(READY)  ## Take README's pictures of the report and of MLflow's compare view, in Chromium, after `make repro`
	@python -m benchmarks.pictures

format: $(READY)  ## Format the code and fix what ruff can
	@ruff check --fix .
	@ruff format .

# Keep locked versions as long as they fit pyproject.toml. The locks name no package index.
LOCK_COMMAND = cp requirements.txt $(VENV)/lock.txt 2>/dev/null; uv pip compile pyproject.toml --universal --python-version 3.11 \
	--extra dev --generate-hashes --custom-compile-command "make lock"
LOCK_EXTRAS_COMMAND = cp requirements-extras.txt $(VENV)/lock-extras.txt 2>/dev/null; uv pip compile pyproject.toml --universal \
	--python-version 3.11 $(EXTRAS:%=--extra %) --constraint requirements.txt --generate-hashes \
	--custom-compile-command "make lock"

lock:  ## Update both locks from pyproject.toml (make lock UPGRADE=--upgrade for newer versions)
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv; }
	@$(LOCK_COMMAND) $(UPGRADE) --quiet --output-file requirements.txt
	@$(LOCK_EXTRAS_COMMAND) $(UPGRADE) --quiet --output-file requirements-extras.txt

clean:  ## Remove caches and half-written files; keep data, models, results and runs
	@echo "removing caches of tools, bytecode and half-written files"
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find . \( -path ./$(VENV) -o -path ./data/raw -o -path ./.dvc \) -prune -o \
		\( -name __pycache__ -o -name '*.partial' -o -name '*.partial.keras' \) -not -name 'mlflow.db*' -print0 | xargs -0 rm -rf
	@echo "kept: $(VENV) data models results reports sweeps mlflow.db mlruns .dvc/cache"
