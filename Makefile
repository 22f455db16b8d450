# Every target sets up what it needs on a fresh Debian or Ubuntu; `make` lists them.
# ARGS go to the program behind a target: make test ARGS="-k approval", make demo ARGS=--help

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: help demo test lint lock clean chromium postgresql
ARGS ?=

# Two processes, each with a practice machine of its own: the lab waits half of its time. -n 0 in ARGS is one.
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder

BIN := .venv/bin
LOCKED := .venv/locked
READY := .venv/ready

# The first Python that is new enough. It is run, not only looked up: pyenv has names that refuse to run.
PYTHON = $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

help:
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 14

demo: $(READY) ## break a practice VPS and watch Guardia heal it
	@$(BIN)/python -m tests.lab.demo $(ARGS)

test: $(READY) chromium postgresql ## all tests, unit and practice VPS, with coverage
	@$(BIN)/python -m pytest --cov $(SIDE_BY_SIDE) $(ARGS)

lint: $(READY) ## style, format, types and the direction of imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: ## pin the dependencies of pyproject.toml again; newer ones with ARGS=--upgrade
	@$(need_python)
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet uv
	build/lock/bin/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-annotate --no-strip-extras --custom-compile-command 'make lock' --quiet -o requirements.lock $(ARGS)

clean: ## remove what the other targets made here
	rm -rf .venv build *.egg-info .coverage .hypothesis .*_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

# A fresh environment for each lock, so that nothing which left the lock stays behind. Where pip is configured
# with a folder as an index, it warns of each package that is not in there: those warnings say nothing.
$(LOCKED): requirements.lock
	@$(need_python)
	@$(need_venv)
	@echo "Setting up .venv with $$($(PYTHON) --version), about a minute"
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/pip install --require-hashes -r requirements.lock 2> >(sed '/^WARNING: Location/d' >&2) | \
		awk -v all=$$(grep -c == requirements.lock) \
		'/^(Collecting|Processing)/ && ++n % 10 == 0 {print "  fetched " n " of " all} \
		/^Installing/ {print "  unpacking"} {fflush()}'
	@touch $@

$(READY): $(LOCKED) pyproject.toml
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

chromium:
	@command -v chromium >/dev/null || { $(may_apt) && $(call apt_install,chromium); } || \
		echo "No chromium here, so the browser tests cannot run. Install the package chromium."

# The server that unit tests use; the package would make and start a cluster that nobody needs.
postgresql:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { $(may_apt) && mkdir -p /etc/postgresql-common && \
		{ [ -e /etc/postgresql-common/createcluster.conf ] || \
		echo "create_main_cluster = false" > /etc/postgresql-common/createcluster.conf; } && \
		$(call apt_install,postgresql,-o Dpkg::Options::=--force-confold); } || \
		echo "No PostgreSQL server here, so its tests cannot run. Install the package postgresql."

define need_python
	[ -n "$(PYTHON)" ] || { echo "Guardia needs Python 3.11 or newer and none is on PATH. Install the package python3.11." >&2; exit 1; }
endef

# Debian keeps ensurepip, without which a venv has no pip, in a package of its own.
define need_venv
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		{ $(may_apt) && $(call apt_install,$$package); } || \
		{ echo "$(PYTHON) cannot make virtual environments. Install the package $$package." >&2; exit 1; }; }
endef

may_apt = [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null
apt_install = echo "Installing $(1)" && apt-get update -q && \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $(2) $(1)
