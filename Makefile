# `make` shows the targets. All of them use .venv, which is created from the locks when needed: first
# the packages that run pgworker (a third of all, and enough for the demo), then those that test it.

PYTHON ?= python3
PYTEST_ARGS ?=
# Tests to run against the built wheel: those that depend on what it contains.
WHEEL_TESTS ?= tests/api/test_console.py tests/db tests/test_packaging.py
# Tests to run against another PostgreSQL than the embedded one: those that its version affects.
SERVER_TESTS ?= tests/queue tests/db/test_migrate.py tests/db/test_pool.py tests/provisioning/test_ledger.py \
	tests/providers/postgres/test_portable.py tests/providers/postgres/test_provider.py tests/providers/postgres/test_templates.py

RUNS := .venv/.runs
VENV := .venv/.complete
PIP_INSTALL := install -qq --disable-pip-version-check --no-input
WHEEL := build/wheel
PEERS := build/bench/peers/.complete
export PIP_ROOT_USER_ACTION := ignore

.PHONY: help venv demo test check test-debian test-wheel chaos bench bench-listing bench-instructions screenshots lock clean

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' Makefile

venv: $(VENV) ## set up .venv (other targets do it when needed)

demo: $(RUNS) ## provision a handful of clients on an embedded PostgreSQL
	@.venv/bin/pgworker demo

test: $(VENV) ## run all tests (PYTEST_ARGS="-k name" for some)
	@.venv/bin/pytest -q -n 2 $(PYTEST_ARGS)

check: $(VENV) ## run all linters
	@.venv/bin/ruff check --quiet .
	@.venv/bin/ruff format --check --quiet . || { echo "not formatted: .venv/bin/ruff format ." >&2; exit 1; }
	@.venv/bin/mypy --strict pgworker cli tests chaos bench
	@.venv/bin/lint-imports --no-cache --no-logo
	@.venv/bin/sqlfluff lint --disable-progress-bar --nocolor sql supabase
	@.venv/bin/python tests/check_words.py

test-wheel: $(VENV) ## build the wheel and test what it installs
	@rm -rf $(WHEEL)
	@.venv/bin/pyproject-build --no-isolation --outdir $(WHEEL)/dist . > /dev/null
	@.venv/bin/python -m venv $(WHEEL)/venv
	@$(WHEEL)/venv/bin/python -m pip $(PIP_INSTALL) -r requirements.lock
	@$(WHEEL)/venv/bin/python -m pip $(PIP_INSTALL) --no-deps $(WHEEL)/dist/*.whl
	@# Not `python -m pytest`: that would put the checkout in front of the wheel.
	@PGWORKER_TEST_WHEEL=$(WHEEL) $(WHEEL)/venv/bin/pytest -q -n 2 $(WHEEL_TESTS) $(PYTEST_ARGS)

test-debian: $(VENV) ## test against the PostgreSQL of Debian (needs pg_virtualenv)
	@LC_ALL=C.UTF-8 pg_virtualenv -o fsync=off -o max_connections=300 sh -c \
		'PGWORKER_TEST_DSN=postgresql://$$PGUSER:$$PGPASSWORD@$$PGHOST:$$PGPORT/postgres \
		.venv/bin/pytest -q -n 2 $(SERVER_TESTS) $(PYTEST_ARGS)'

chaos: $(VENV) ## kill, freeze and cut off real workers for MINUTES (10), as planned by SEED
	@.venv/bin/python -m chaos --minutes $(or $(MINUTES),10) $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)

bench: $(VENV) $(PEERS) ## measure pgworker and its peers (quick: CELLS=throughput,latency ROUNDS=1)
	@.venv/bin/python -m bench --peers build/bench/peers/bin/python \
		$(if $(CELLS),--cells $(CELLS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(BENCH_ARGS)

bench-listing: $(VENV) ## measure lists of 1,000 and 100,000 clients over HTTP
	@.venv/bin/python bench/listing.py

bench-instructions: $(VENV) ## count the instructions that the server executes for a job (needs valgrind)
	@.venv/bin/python -m bench.instructions

screenshots: $(VENV) ## retake the console's pictures in docs/images (needs Chromium)
	@PGWORKER_SCREENSHOTS=1 .venv/bin/pytest -q tests/browser/test_console_pages.py -k picture

lock: ## rewrite the locks and bench/peers.txt (needs uv; UPGRADE=1 takes newer versions)
	@command -v uv > /dev/null || { echo "uv is missing: pipx install uv" >&2; exit 1; }
	@uv pip compile --quiet --no-header --universal --generate-hashes --python-version 3.11 \
		--extra all --group build --group dev $(if $(UPGRADE),--upgrade) \
		--output-file requirements.lock pyproject.toml
	@uv pip compile --quiet --no-header --universal --generate-hashes --python-version 3.11 \
		--extra all --group build $(if $(UPGRADE),--upgrade) --constraint requirements.lock \
		--output-file requirements-run.lock pyproject.toml
	@uv pip compile --quiet --no-header --no-annotate --universal --python-version 3.11 \
		$(if $(UPGRADE),--upgrade) --output-file bench/peers.txt bench/peers.in

clean: ## remove everything that the other targets created
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The stamp comes last, so that an interrupted set-up starts over.
$(RUNS): requirements-run.lock pyproject.toml
	@command -v $(PYTHON) > /dev/null || { \
		echo "$(PYTHON) is missing: install Python 3.11 or newer, or make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "pgworker needs Python 3.11 or newer, not $$($(PYTHON) -V): make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
	if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
		echo "installing python3-venv"; \
		{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y python3-venv; } > /dev/null; \
	else \
		echo "Python's venv module is missing: sudo apt-get install python3-venv" >&2; exit 1; \
	fi
	@echo "setting up .venv from requirements-run.lock (once)"
	@rm -f $@
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip $(PIP_INSTALL) -r $<
	@.venv/bin/python -m pip $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV): requirements.lock $(RUNS)
	@echo "adding the packages that test and check it from requirements.lock (once)"
	@rm -f $@
	@.venv/bin/python -m pip $(PIP_INSTALL) -r $<
	@touch $@

# A peer that can't be installed here is named in the report; the others are still measured.
$(PEERS): bench/peers.txt
	@echo "setting up the benchmark's peers in build/bench/peers (once)"
	@rm -f $@
	@$(PYTHON) -m venv build/bench/peers
	@build/bench/peers/bin/python -m pip $(PIP_INSTALL) -r $< || \
		xargs -d '\n' -n 1 build/bench/peers/bin/python -m pip $(PIP_INSTALL) --no-deps < $< || true
	@touch $@
