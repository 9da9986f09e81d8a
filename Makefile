# `make run` and `make test` need Python 3.11, make and nothing else. `make` lists the rest.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := -m pip install --quiet --quiet --disable-pip-version-check --no-input --require-hashes
PIP := $(BIN)/python $(INSTALL)
# Two at a time; a file stays together, because the walks through a running stack build on each other. In the order that
# tests/timing.py gives: sorted by the number of their tests, the longest ones would all come last.
TOGETHER := -n 2 --dist loadfile --no-loadscope-reorder
# With extras: pip 23 pins `coverage[toml]` only where the lock names the extra too.
COMPILE := uv pip compile --quiet --no-strip-extras --generate-hashes --universal --python-version 3.11 --no-header

.PHONY: help run test check coverage fix shell sandbox bench full screenshots errors lock

help:  ## list what make can do
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r name does; do printf '%-13s %s\n' "$$name" "$$does"; done

run: .venv/.stamp-run  ## start everything for a first look; Ctrl-C ends it
	@[ -e .env ] || cp .env.example .env
	@exec env DEBUG="$${DEBUG:-true}" $(BIN)/python manage.py runlocal $(args)

test: .venv/.stamp-dev  ## run the tests; k=withdraw narrows them
	@exec $(BIN)/python -m pytest $(if $(k),-k '$(k)',$(TOGETHER)) $(args)

check: .venv/.stamp-dev  ## what .ci/run calls: style, types, walls, deployment, migrations, tests
	@$(BIN)/ruff format --check --quiet . || { echo "Some files are not formatted; run: make fix" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python .ci/deploy-env $(BIN)/python manage.py check --deploy --fail-level WARNING
	@env DEBUG=true $(BIN)/python manage.py makemigrations --check --dry-run
	@exec $(BIN)/python -m pytest $(TOGETHER)

coverage: .venv/.stamp-dev  ## before an issue is called done: tokens and consent are covered whole, the rest to 95 %
	@env CPV_TEST_TWICE=1 $(BIN)/python -m pytest $(TOGETHER) --cov --cov-branch --cov-report=term
	@$(BIN)/coverage report --include='tokens/*,consent/*' --fail-under=100 >.coverage-rooms.txt \
		|| { cat .coverage-rooms.txt >&2; echo "tokens and consent are covered whole; see the lines above." >&2; exit 1; }

fix: .venv/.stamp-dev  ## format, and repair what ruff can repair
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --fix .

shell: .venv/.stamp-run  ## a Python prompt with the models at hand
	@exec env DEBUG="$${DEBUG:-true}" $(BIN)/python manage.py shell

sandbox: .venv/.stamp-run  ## the pretended Microsoft cloud alone
	@exec $(BIN)/python -m sandbox serve --port "$${CPV_SANDBOX_PORT:-8400}" $(args)

screenshots: .venv/.stamp-dev  ## take the pictures of the README anew, by walking through the product
	@env CPV_SCREENSHOTS=1 $(BIN)/python -m pytest tests/browser
	@for shot in invitation:invitation refused:refused connected-counting:connected home:home; do \
		cp "var/screenshots/$${shot%%:*}-light-1280.png" "docs/screenshots/$${shot##*:}.png"; done

errors: .venv/.stamp-run  ## write docs/errors.md anew from the table of Microsoft's answers
	@$(BIN)/python scripts/errors_page.py

bench: .venv/.stamp-run .venv-bench/.stamp  ## measure it beside limits and peers; make bench full takes longer
	@exec $(BIN)/python -m bench $(filter full,$(MAKECMDGOALS)) $(args)

full: bench

lock:  ## for maintainers: write the requirements files anew
	@command -v uv >/dev/null || { echo "make lock needs uv; nothing else does." >&2; exit 1; }
	@$(COMPILE) pyproject.toml --output-file requirements.txt
	@$(COMPILE) pyproject.toml --group dev --output-file requirements-dev.txt
	@$(COMPILE) bench/requirements.in --output-file requirements-bench.txt

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "CPV Panel needs Python 3.11 or newer as $(PYTHON). Name another one: make run PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "Python's venv module is missing. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv

.venv/.stamp-run: requirements.txt $(BIN)/python
	@echo "Installing what CPV Panel needs into .venv ..."
	@$(PIP) -r requirements.txt
	@touch $@

# requirements-dev.txt holds everything of requirements.txt, so one installation serves both.
.venv/.stamp-dev: requirements-dev.txt $(BIN)/python
	@echo "Installing what the tests need into .venv ..."
	@$(PIP) -r requirements-dev.txt
	@touch .venv/.stamp-run $@

# Peers to compare with, apart from everything else; without them the bench says what is missing and goes on.
.venv-bench/.stamp: requirements-bench.txt | $(BIN)/python
	@echo "Installing what the bench compares with into .venv-bench ..."
	@{ $(BIN)/python -m venv --clear .venv-bench && .venv-bench/bin/python $(INSTALL) -r requirements-bench.txt && touch $@; } \
		|| { echo "It could not be installed; the bench goes on without." >&2; rm -rf .venv-bench; }
