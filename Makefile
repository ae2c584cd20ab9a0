# Start with make demo, make test or make install; each creates .venv first if it is absent.
PYTHON ?= python3
BACKEND ?=# of the demo: torch or jax; by default an installed one, else torch
DIR ?=# of make quick and make test: a folder or file of tests; by default all
QUICK ?=# of make bench: 1 for a run of three minutes, which shows that it works
BIN := .venv/bin
MEASURED := video data transforms feed metrics# by make coverage

.PHONY: install demo quick test test-slow coverage fuzz versions sdist check lint types docs bench clean

install: .venv/installed

demo: .venv/demo
	$(if $(BACKEND),KERAS_BACKEND=$(BACKEND) )$(BIN)/cinefeed demo --out demo

quick: .venv/installed
	$(BIN)/python -m pytest -n 2 --quick $(DIR)

test: .venv/installed
	$(BIN)/python -m pytest -n 2 -m "not slow" $(DIR)

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow

coverage: .venv/installed
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -q -m "not slow" $(MEASURED:%=tests/%) \
		tests/test_clips.py tests/test_label_types.py tests/test_plugins.py tests/test_split.py \
		tests/test_notebook_display.py tests/reports/test_preview.py tests/remote/test_remote_feed.py tests/cli/test_bench.py
	$(BIN)/python -m coverage combine --quiet
	for name in $(MEASURED); do \
		$(BIN)/python -m coverage report --show-missing --fail-under=90 --include="*/cinefeed/$$name/*" || exit; done

fuzz: .venv/installed
	$(BIN)/python -m pytest tests/fuzz -m slow

versions:
	$(PYTHON) tests/versions

sdist: .venv/installed
	$(BIN)/python scripts/sdist.py

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: .venv/installed
	$(BIN)/mypy

check: lint types docs test

docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # with --quiet, --strict would ignore warnings

bench: .venv-bench/installed
	.venv-bench/bin/python -m benchmarks $(if $(QUICK),--quick)

.venv-bench/installed: pyproject.toml constraints.txt benchmarks/peers.txt
	test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --constraint constraints.txt --requirement benchmarks/peers.txt \
		--editable ".[keras,torch,dicom,remote,report]"
	# litdata brings it; its build for CUDA stops torchcodec beside a PyTorch without, and nothing here needs it
	.venv-bench/bin/python -m pip uninstall --quiet --yes torchvision
	touch $@

.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[keras,torch,jax,dicom,nifti,hdf5,onnx,report,tensorboard,remote,ray,docs,dev]"
	touch $@

.venv/demo: pyproject.toml constraints.txt
	test -e .venv/installed || $(PYTHON) scripts/demo_environment.py $(BACKEND)
	touch $@

clean:
	rm -rf .venv .venv-bench .bench demo site .mypy_cache .ruff_cache .pytest_cache .hypothesis
