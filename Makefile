# make demo   sets up, renders a small dataset and fills its rare class
# make test   sets up, then ruff, mypy and pytest: what CI runs
# make check  ruff and mypy alone
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Named by what defines it, so that an environment can outlive a clone.
READY := $(VENV)/.ready-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
# Two waiting thread pools spin against each other on a small machine; sleeping threads do not.
export GOMP_SPINCOUNT ?= 0

.PHONY: setup demo test check clean

setup: $(READY)
	@$(BIN)/python -P -c "import os, rarefill; assert os.path.samefile(os.path.dirname(rarefill.__file__), 'rarefill')" 2>/dev/null \
		|| $(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .

$(READY):
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/rarefill demo

test: check
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
