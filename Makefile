# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt

.PHONY: demo demo-keras test test-fast lint bench clean

# torch first and by its exact version: a range would let pip take a build with gigabytes of CUDA libraries.
$(VENV)/.python: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	touch $@

$(VENV)/.demo: $(VENV)/.python setup.cfg pyproject.toml
	$(PIP) -e ".[demo]"
	touch $@

$(VENV)/.demo-keras: constraints.txt setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[demo-keras]"
	touch $@

$(VENV)/.dev: $(VENV)/.python setup.cfg pyproject.toml
	$(PIP) -e ".[dev]"
	touch $@

demo: $(VENV)/.demo  ## Train h1 and compatible updates on MNIST, print the table, say where to look.
	$(BIN)/python examples/mnist_update.py --out runs/demo

demo-keras: $(VENV)/.demo-keras  ## The same in Keras.
	$(BIN)/python examples/mnist_update_keras.py --out runs/demo-keras

# Keras runs on one backend per process, so its tests run once for each.
KERAS_TESTS := tests/keras bc_keras
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

test: $(VENV)/.dev lint  ## All tests, doctests and checks.
	$(PYTEST) --ignore tests/keras --ignore bc_keras
	KERAS_BACKEND=tensorflow $(PYTEST) $(KERAS_TESTS)
	KERAS_BACKEND=jax $(PYTEST) $(KERAS_TESTS)
	KERAS_BACKEND=torch $(PYTEST) $(KERAS_TESTS)

test-fast: $(VENV)/.dev  ## Without the tests that start processes or train for long, Keras on one backend.
	$(PYTEST) -m "not slow"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.dev  ## Side by side with the alternatives; the original library is installed for this alone.
	$(PIP) --no-deps BackwardCompatibilityML==1.4.2
	$(BIN)/python benchmarks/scores.py
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/step_time.py
	$(BIN)/python benchmarks/keras_step_time.py
	$(BIN)/python benchmarks/mnist_losses.py

clean:
	rm -rf $(VENV) runs
