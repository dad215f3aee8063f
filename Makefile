# make demo and make test do all the set-up they need; see README.md.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test audit-check lint bench docs clean

$(READY): pyproject.toml constraints.txt hatch_build.py src/onca/engine/build.py $(wildcard src/onca/engine/c/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e ".[dev]" -c constraints.txt
	touch $(READY)

demo: $(READY)
	$(BIN)/onca study cai2020 --preset demo

# Two processes of one thread each (tests/conftest.py); files are not divided, so that each makes its runs once.
test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile

audit-check: $(READY)
	ONCA_CLEAN_RUNS=50 $(BIN)/python -m pytest tests/test_audit_clean.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m pip install --quiet -e ".[bench]" -c constraints.txt
	$(BIN)/python -m benchmarks

docs: $(READY)
	$(BIN)/python -m pip install --quiet -e ".[docs]" -c constraints.txt
	$(BIN)/zensical build

clean:
	rm -rf $(VENV) site build dist .pytest_cache .mypy_cache .ruff_cache
