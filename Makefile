# Two commands on a fresh machine: `make demo` does the main job, `make test` passes the tests.
PYTHON ?= python3
BIN    := .venv/bin
PIP    := $(BIN)/pip --disable-pip-version-check install --quiet

.PHONY: setup setup-dev demo test check lint types docs accuracy test-real format lock clean

setup: .venv/.setup
.venv/.setup: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "redline needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv .venv || { echo "no venv module: on Debian, apt-get install python3-venv"; exit 1; }
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-build-isolation --no-deps -e .
	@touch $@

setup-dev: .venv/.setup-dev
.venv/.setup-dev: .venv/.setup requirements-dev.lock
	$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

demo: setup
	$(BIN)/redline demo

test: setup-dev
	$(BIN)/pytest

# Tests last and alone: they measure times on this machine.
check: setup-dev
	$(MAKE) --no-print-directory --jobs 2 lint types docs accuracy
	$(MAKE) --no-print-directory test

lint: setup-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports

types: setup-dev
	$(BIN)/mypy

docs: setup-dev
	$(BIN)/cog --check -r README.md docs/*/*.md

# A part of the accuracy suite in virtual time; fails when coverage or cost is worse than its bound.
accuracy: setup-dev
	$(BIN)/python benchmarks/accuracy.py --quick --rows /dev/null

# Needs the real servers: REDLINE_REAL names the folder that holds them (CONTRIBUTING.md says how to make it).
test-real: setup-dev
	$(BIN)/pytest -m real tests/real

format: setup-dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# After a change of the dependencies: both locks anew, hashed, without a registry's address.
UV_COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url pyproject.toml
lock: setup-dev
	$(PIP) uv
	$(UV_COMPILE) --group build -o requirements.lock
	$(UV_COMPILE) --group dev -o requirements-dev.lock

clean:
	rm -rf .venv redline-results redline-demo
