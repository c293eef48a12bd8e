# Two commands for everybody: `make forecast` and `make test`. Both set up $(VENV) themselves. `make docs` builds the site.

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
CLAIMS ?= claims
PROJECT = setup.cfg pyproject.toml constraints.txt
SITE ?= build/docs

# TORCH=cpu takes PyTorch from its own index of builds for CPUs, some 200 MB; without it, pip takes what PyPI has, which on
# Linux is a build for CUDA of several GB.
TORCH ?=
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH_PIN = $(shell sed -n 's/^torch==\([0-9.]*\)$$/\1/p' constraints.txt)

# What the Python API needs, where NumPy is 2 and the runner not installed.
VENV_NUMPY2 ?= .venv-numpy2
TESTS_NUMPY2 = $(addprefix tests/test_, api.py python_docs.py forecast_command.py inputs.py input_cases.py sources.py \
	zarr_input.py zarr_store.py format2.py stores.py own_stores.py writer.py grib_output.py products.py \
	verification.py verification_products.py verification_sources.py verify_command.py netcdf.py inspection.py)

# compliance-checker and iris, for the tests that have others read what is written here.
VENV_INTEROP ?= .venv-interop

.PHONY: forecast claims test test-numpy2 test-interop test-long lint types unit docs bench clean

forecast: $(VENV)/.installed
	@echo "== A forecast of 3 members over 2 days, with the bundled weights: some seconds"
	$(BIN)/ai-models mosaic --variant mini --file examples/mini-input.grib --lead-time 48 \
		--num-ensemble-members 3 --path $(ENSEMBLE)
	@echo "== What is in it"
	$(BIN)/ai-models-mosaic inspect $(ENSEMBLE)
	@echo "== How good it is, against what came: tables and pictures in $(VERIFICATION), in less than a minute"
	$(BIN)/ai-models-mosaic verify --forecast mini=$(ENSEMBLE) --truth examples/mini-input.grib examples/mini-truth.grib \
		--output $(VERIFICATION)
	@echo "== A page to look at it: less than a minute"
	$(BIN)/ai-models-mosaic report $(ENSEMBLE) --output $(REPORT)
	@echo "== Done. Look at it: open $(abspath $(REPORT)) in a browser"
	@echo "== The commands are in $(BIN). To type them as the README does: . $(BIN)/activate"

# Simulates two years, forecasts, verifies: less than 20 minutes on two cores, and again where it stopped.
claims: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/claims.py --output $(CLAIMS)
	@echo "To look at it, open $(abspath $(CLAIMS))/claims.html in a browser."

test: lint types unit

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/lint-imports
	@test ! -x $(BIN)/hadolint || $(BIN)/hadolint Dockerfile
	$(BIN)/shellcheck examples/operations/forecast-open-data examples/operations/slurm-array examples/operations/slurm-merge

types: $(VENV)/.installed-dev
	$(BIN)/mypy

unit: $(VENV)/.installed-dev
	$(BIN)/python tests/parity.py tests/data/*.npz
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --cov=ai_models_mosaic --cov-report= --cov-fail-under=94

# The site, with warnings as errors: it runs the tutorial, the gallery and the notebook, and its links are followed.
docs: $(VENV)/.installed-docs
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --jobs auto --quiet \
		--conf-dir docs --doctree-dir $(SITE)/doctrees . $(SITE)/html
	$(BIN)/python docs/links.py $(SITE)/html
	@echo "To look at it, open $(SITE)/html/index.html in a browser."

test-numpy2: $(VENV_NUMPY2)/.installed
	OMP_NUM_THREADS=1 $(VENV_NUMPY2)/bin/pytest --numprocesses 2 $(TESTS_NUMPY2)

test-interop: $(VENV)/.installed-dev $(VENV_INTEROP)/.installed
	PATH="$(abspath $(VENV_INTEROP))/bin:$$PATH" OMP_NUM_THREADS=1 $(BIN)/pytest tests/test_netcdf.py -rs

# What takes minutes: many damaged files of every kind, and runs that are killed or get in each other's way.
test-long: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py --many 300
	OMP_NUM_THREADS=1 $(BIN)/python tests/kills.py --single 40 --double 10 --device 40 --ranks 5 --interleaved 20 --whole 3

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/interpolation.py
	$(BIN)/python benchmarks/grib_encoding.py
	$(BIN)/python benchmarks/ensemble_output.py

clean:
	rm -rf $(VENV) $(VENV_NUMPY2) $(VENV_INTEROP) build dist *.egg-info *.grib *.grib.partial $(VERIFICATION) $(REPORT)

$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "expected Python 3.10, 3.11 or 3.12 with venv and pip; found none. Try: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "== Making a virtual environment in $(VENV)"
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.torch: $(VENV)/.python constraints.txt
ifeq ($(TORCH),cpu)
	@echo "== Installing PyTorch $(TORCH_PIN) for CPUs into $(VENV): some 200 MB"
	$(BIN)/pip install --quiet --disable-pip-version-check --index-url $(TORCH_INDEX) torch==$(TORCH_PIN)
endif
	touch $@

$(VENV)/.installed: $(VENV)/.torch $(PROJECT)
	@echo "== Installing the package and what it needs into $(VENV): minutes, in which pip says nothing"
	$(INSTALL) --editable '.[report,verify]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.torch $(PROJECT)
	@echo "== Installing what tests need into $(VENV): minutes, in which pip says nothing"
	$(INSTALL) --editable '.[dev]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: $(VENV)/.torch $(PROJECT)
	@echo "== Installing what the documentation needs into $(VENV): a minute or more, in which pip says nothing"
	$(INSTALL) --editable '.[docs]'
	touch $@ $(VENV)/.installed

$(VENV_NUMPY2)/.installed: setup.cfg environments/numpy2.txt
	@test -n "$(PYTHON)" || { echo "expected Python 3.11 or 3.12 with venv and pip; found none. Try: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV_NUMPY2)
	$(VENV_NUMPY2)/bin/pip install --quiet --disable-pip-version-check --requirement environments/numpy2.txt
	$(VENV_NUMPY2)/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

$(VENV_INTEROP)/.installed: environments/interop.txt
	@test -n "$(PYTHON)" || { echo "expected Python 3.11 or 3.12 with venv and pip; found none. Try: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV_INTEROP)
	$(VENV_INTEROP)/bin/pip install --quiet --disable-pip-version-check --requirement environments/interop.txt
	touch $@
