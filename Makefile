# Two commands for everybody: `make forecast` and `make test`. Both set up $(VENV) themselves.

# The first interpreter that the ai-models runner can live with: 3.10 to 3.12.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.10; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& echo $$p && break; done)
VENV ?= .venv
BIN = $(VENV)/bin
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
ENSEMBLE ?= mini-ensemble.grib
VERIFICATION ?= mini-verification
REPORT ?= mini-report.html
PROJECT = setup.cfg pyproject.toml constraints.txt

# What the Python API needs, where NumPy is 2 and the runner not installed.
VENV_NUMPY2 ?= .venv-numpy2
TESTS_NUMPY2 = $(addprefix tests/test_, api.py python_docs.py forecast_command.py inputs.py input_cases.py sources.py \
	zarr_input.py zarr_store.py format2.py stores.py own_stores.py writer.py grib_output.py products.py \
	verification.py verification_products.py verification_sources.py verify_command.py)

.PHONY: forecast test test-numpy2 test-long lint types unit bench clean

forecast: $(VENV)/.installed
	$(BIN)/ai-models mosaic --variant mini --file examples/mini-input.grib --lead-time 48 \
		--num-ensemble-members 3 --path $(ENSEMBLE)
	$(BIN)/ai-models-mosaic inspect $(ENSEMBLE)
	$(BIN)/ai-models-mosaic verify --forecast mini=$(ENSEMBLE) --truth examples/mini-input.grib examples/mini-truth.grib \
		--output $(VERIFICATION)
	$(BIN)/ai-models-mosaic report $(ENSEMBLE) --output $(REPORT)
	@echo "To look at it, open $(REPORT) in a browser. Commands are in $(BIN): . $(BIN)/activate"

test: lint types unit

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports

types: $(VENV)/.installed-dev
	$(BIN)/mypy

unit: $(VENV)/.installed-dev
	$(BIN)/python tests/parity.py tests/data/*.npz
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --cov=ai_models_mosaic --cov-report= --cov-fail-under=94

test-numpy2: $(VENV_NUMPY2)/.installed
	OMP_NUM_THREADS=1 $(VENV_NUMPY2)/bin/pytest --numprocesses 2 $(TESTS_NUMPY2)

# What takes minutes: many damaged files of every kind, and runs that are killed or get in each other's way.
test-long: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py --many 300
	OMP_NUM_THREADS=1 $(BIN)/python tests/kills.py --single 40 --double 10 --device 40 --ranks 5 --interleaved 20 --whole 3

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/interpolation.py
	$(BIN)/python benchmarks/grib_encoding.py
	$(BIN)/python benchmarks/ensemble_output.py

clean:
	rm -rf $(VENV) $(VENV_NUMPY2) build dist *.egg-info *.grib *.grib.partial $(VERIFICATION) $(REPORT)

$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "expected Python 3.10, 3.11 or 3.12 with venv and pip; found none. Try: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.python $(PROJECT)
	$(INSTALL) --editable '.[report,verify]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.python $(PROJECT)
	$(INSTALL) --editable '.[dev]'
	touch $@ $(VENV)/.installed

$(VENV_NUMPY2)/.installed: setup.cfg environments/numpy2.txt
	@test -n "$(PYTHON)" || { echo "expected Python 3.11 or 3.12 with venv and pip; found none. Try: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV_NUMPY2)
	$(VENV_NUMPY2)/bin/pip install --quiet --disable-pip-version-check --requirement environments/numpy2.txt
	$(VENV_NUMPY2)/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@
