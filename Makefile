# Two commands a newcomer needs: `make demo` and `make test`. Both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test proofs lint pictures docs docs-curves clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    train an agent on the candy world (half a minute), evaluate it, draw a report"
	@echo "make test    run the tests"
	@echo "make lint    ruff, format, mypy (strict), import layers"
	@echo "make pictures  draw the worlds for docs/images/worlds"
	@echo "make docs    build the documentation into build/site (warnings are errors)"
	@echo "make docs-curves  draw the learning curves of docs/images/curves (two minutes)"
	@echo "make proofs  the long measurements; writes docs/results/*.json"

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'gumdrop needs Python 3.11 or newer: make PYTHON=python3.11')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar off -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar off -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/installed
	@$(BIN)/gumdrop train candy-ppo $(ARGS)
	@echo "the command: source $(BIN)/activate, then gumdrop; or $(BIN)/gumdrop"

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

proofs: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m slow $(ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

PICTURES := bandit maze door-key ice-maze candy cleanup matrix point-maze corridor
pictures: $(VENV)/installed
	mkdir -p docs/images/worlds
	for id in $(PICTURES); do $(BIN)/gumdrop env show $$id --steps 12 --seed 3 --out docs/images/worlds/$$id.png > /dev/null; done

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --progress-bar off -c constraints.txt -e '.[docs]'
	touch $@

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "build/site/index.html"

docs-curves: $(VENV)/installed
	$(BIN)/python docs/build/curves.py

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
