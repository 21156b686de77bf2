# For people. Needs Linux, make and CPython 3.11 or newer (PYTHON=/path/to/python chooses one).
# Everything installed goes to .venv in this folder; `make clean` removes it.

.PHONY: help setup test lint format demo run bench bench-edge openapi torture lock clean
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV   := .venv
BIN    := $(VENV)/bin
# The pins are the whole resolved set, so pip needs no resolver, and the project itself never pulls anything unpinned.
PIP    := $(BIN)/python -m pip --quiet --disable-pip-version-check
UV     := uv==0.13.9
UPGRADE ?=
ARGS   ?=
SEED   ?=
JOBS   ?=
KILLS  ?=
# Two tests at a time, as most wait for a child or for the disk. The tests of one file share a daemon and stay together;
# the files go in their own order, which has the long ones before the short. A test that hangs or kills its process ends
# the run: it would be tried again in every process that takes that one's place. (ARGS='-n 0': one after the other.)
AT_ONCE := -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# Where Python is told to keep no compiled code (an empty value is none), each of the hundreds of processes that tests
# start from this folder would compile jobsvc anew: some tenths of a second of processor time for each daemon.
export PYTHONDONTWRITEBYTECODE :=

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

setup: $(VENV)/.dev ## create .venv with everything for work on jobsvc
	@echo "ready: $(VENV)"

test: $(VENV)/.dev ## set up and run every test (ARGS='-k name' picks some)
	$(BIN)/python -m pytest $(AT_ONCE) $(ARGS)

lint: $(VENV)/.dev ## format, lint, types and floors, without changing a file
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## let ruff format and fix what it can
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

demo: $(VENV)/.runtime ## start a daemon, run real jobs through it, stop it
	@$(BIN)/python examples/demo.py $(ARGS)

run: $(VENV)/.runtime ## the same, and leave the daemon running
	@$(BIN)/python examples/demo.py --leave-running $(ARGS)

bench: $(VENV)/.runtime ## measure a real daemon beside its bare limits
	@$(BIN)/python -m bench $(ARGS)

bench-edge: $(VENV)/.runtime ## the same with crowds at its door: idle, waiting, slow, flooding
	@$(BIN)/python -m bench --edge $(ARGS)

openapi: $(VENV)/.dev ## write docs/openapi.json anew, after a change of the API
	$(BIN)/python -m jobsvc.http.contract > docs/openapi.json.new
	mv docs/openapi.json.new docs/openapi.json

torture: $(VENV)/.dev ## kill it again and again and check what it kept (SEED= JOBS= KILLS=)
	@$(BIN)/python -m tests.torture $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS)) $(if $(KILLS),--kills $(KILLS)) $(ARGS)

lock: $(VENV)/.dev ## resolve requirements/*.txt anew (UPGRADE=--upgrade takes newer versions)
	$(PIP) install '$(UV)'
	set -e; compile() { UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile --quiet --universal \
	    --python-version 3.11 --no-emit-index-url --no-emit-find-links $(UPGRADE) "$$@"; }; \
	compile --group dev pyproject.toml -o requirements/dev.txt; \
	compile -c requirements/dev.txt pyproject.toml -o requirements/runtime.txt; \
	compile -c requirements/dev.txt --group build -o requirements/build.txt
	$(PIP) uninstall --yes uv

clean: ## remove .venv, caches and what was built
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -f twisted/plugins/dropin.cache
	find jobsvc tests twisted bench examples -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- the environment, in three steps; each stamp is newer than all it was made from

$(VENV)/.python:
	@python=$$(.ci/find-python) && echo "creating $(VENV) with $$python" && "$$python" -m venv --clear $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.python requirements/runtime.txt requirements/build.txt pyproject.toml
	@echo "installing jobsvc into $(VENV)"
	@$(PIP) install --no-deps -r requirements/runtime.txt -r requirements/build.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.txt
	@echo "installing the tools for tests, types and lint"
	@$(PIP) install --no-deps -r requirements/dev.txt
	@$(PIP) check
	@touch $@
