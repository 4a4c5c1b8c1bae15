# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

.PHONY: demo test test-fast lint bench clean

# torch first and by its exact version: a range would let pip take a build with gigabytes of CUDA libraries.
$(VENV)/.python: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	touch $@

$(VENV)/.demo: $(VENV)/.python setup.cfg pyproject.toml
	$(PIP) -e ".[demo]"
	touch $@

$(VENV)/.dev: $(VENV)/.python setup.cfg pyproject.toml
	$(PIP) -e ".[dev]"
	touch $@

demo: $(VENV)/.demo  ## Train h1 and compatible updates on MNIST, print the table, say where to look.
	$(BIN)/python examples/mnist_update.py --out runs/demo

test: $(VENV)/.dev lint  ## All tests, doctests and checks.
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(VENV)/.dev  ## Without the tests that start processes or train for long.
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev  ## Side by side with the alternatives; the original library is installed for this alone.
	$(PIP) --no-deps BackwardCompatibilityML==1.4.2
	$(BIN)/python benchmarks/scores.py
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/step_time.py
	$(BIN)/python benchmarks/mnist_losses.py

clean:
	rm -rf $(VENV) runs
