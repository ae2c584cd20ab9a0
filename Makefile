# make demo, make test and make install are all that a newcomer needs; each makes .venv first if it is absent.
PYTHON ?= python3
BACKEND ?=# of the demo: torch or jax; by default the one that is installed, else torch
BIN := .venv/bin

.PHONY: install demo quick test test-slow fuzz versions check lint types bench clean

install: .venv/installed

demo: .venv/demo
	$(if $(BACKEND),KERAS_BACKEND=$(BACKEND) )$(BIN)/cinefeed demo --out demo

quick: .venv/installed
	$(BIN)/python -m pytest -n 2 --quick

test: .venv/installed
	$(BIN)/python -m pytest -n 2 -m "not slow"

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow

fuzz: .venv/installed
	$(BIN)/python -m pytest tests/fuzz -m slow

versions:
	$(PYTHON) tests/versions

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/installed
	$(BIN)/mypy

check: lint types test

bench: .venv/installed
	$(BIN)/python -m benchmarks

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[keras,torch,jax,dicom,nifti,hdf5,onnx,report,tensorboard,dev]"
	touch $@

.venv/demo: pyproject.toml constraints.txt
	test -e .venv/installed || $(PYTHON) scripts/demo_environment.py $(BACKEND)
	touch $@

clean:
	rm -rf .venv demo .mypy_cache .ruff_cache .pytest_cache .hypothesis
