# Everything here works from a fresh checkout: each target sets up what it needs, once.
# Needed before: Python 3.11 or newer with its venv module, make, and either the `temporal` program or
# Go 1.25 or newer (or a network from which Temporal's program can be downloaded).

PYTHON ?= python3
ARGS ?=
RUN := .venv/bin/python
STAMP := .venv/.runward-setup
UV = $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)

.DEFAULT_GOAL := help
.PHONY: help setup demo test ui lint docs bench clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo '  ARGS="..." is handed on, as in: make test ARGS="-k embedded"'

setup: $(STAMP) ## install everything into .venv, and find or make the temporal program

# Again only after a change of these two files; `rm .venv/.runward-setup` forces it.
$(STAMP): pyproject.toml uv.lock
	@command -v uv >/dev/null 2>&1 || test -x .uv/bin/uv || \
		{ $(PYTHON) -m venv .uv && echo '*' > .uv/.gitignore && \
		.uv/bin/python -m pip install --quiet 'uv>=0.9'; }
	$(UV) sync --frozen --compile-bytecode
	$(RUN) -m runward.workers.temporal_binary
	@touch $@

demo: setup ## run the demonstration, start to finish, on this machine
	$(RUN) deploy/demo/main.py $(ARGS)

# Else each process that a test starts would compile anew what it imports from here.
test: export PYTHONDONTWRITEBYTECODE =
test: setup ## run the tests
	$(RUN) -m pytest -n 4 -q $(ARGS)

# Not a part of `make test`: it needs a browser. The picture in the documentation is made anew by
# make ui ARGS="--screenshot docs/waiting-run.png"
ui: setup ## read runs in Temporal's UI, with Chromium
	@command -v chromium >/dev/null || \
		{ test "$$(id -u)" = 0 && command -v apt-get >/dev/null && apt-get update -q && \
		apt-get install -q -y --no-install-recommends chromium fonts-dejavu-core; } || \
		{ echo 'make ui needs Chromium, and `chromium` is not on the PATH.' >&2; \
		echo 'Install it, on Debian with: apt-get install chromium' >&2; exit 1; }
	$(UV) sync --frozen --inexact --group ui
	$(RUN) -m pytest -q tests/ui $(ARGS)

# Scripts import what stands beside them, so they are checked under their bare names.
lint: setup ## check style, types and the directions of imports
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	MYPYPATH=bench:deploy/demo .venv/bin/mypy bench/*.py deploy/demo/*.py
	cd .typing && ../.venv/bin/lint-imports --config ../pyproject.toml

docs: setup ## build the documentation into site/, offline; what is made from code is made anew
	$(RUN) -m docs.make
	.venv/bin/zensical build --clean --strict

BENCHES := history tax kills store retention watch sizes long_runs

bench: setup ## run each benchmark briefly
	@for name in $(BENCHES); do \
		echo "== bench/$$name.py --quick"; $(RUN) bench/$$name.py --quick $(ARGS) || exit 1; \
	done

clean: ## remove what setup, tests and builds made in this folder (not .runward, the state of runs)
	rm -rf .venv .uv build dist site .cache *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
