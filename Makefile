# Two commands are enough: `make demo` and `make test`. `make help` lists the rest.

VENV ?= .venv
# The first Python of at least 3.11; another one: make PYTHON=/path/to/python3.12 ...
PYTHON ?= $(shell for python in python3.11 python3 python3.12 python3.13; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
BIN := $(VENV)/bin
TESTS ?= tests/unit tests/integration tests/e2e
# Tests of what must not lose a request, and of what one caller must not take away from the others.
FAULTS := tests/faults $(patsubst %,tests/integration/serving/test_%.py,losses crowds restart faults slots signal) \
	$(patsubst %,tests/integration/state/test_%.py,outages workers postgres) \
	$(patsubst %,tests/unit/%.py,state/test_clock state/test_worker http/test_bodies http/test_decoding http/test_places \
	images/test_jpeg_files images/test_png_files serving/test_ray_backend serving/test_shutdown)
TIMES ?= 10
# What `make bench-gpu` measures, and the folder of its results.
FAMILY ?= klein
OUT ?= build/bench
# Processes that share the tests, each with one thread; WORKERS= runs them in one. Compiled modules are kept
# (PYTHONDONTWRITEBYTECODE=): tests start many processes, and later ones then start faster.
WORKERS ?= --numprocesses auto --maxprocesses 4 --dist loadgroup

.DEFAULT_GOAL := help
# What tests run for real beside Python; Debian's names.
SYSTEM := postgresql prometheus chromium nodejs

.PHONY: help setup system demo docs test test-pythons train-gpu test-clients test-cluster test-faults bench-gpu check format

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed-dev ## Create .venv with careedit and everything its developers need

system: ## Install the programs that tests run beside Python (Debian, as root)
	@missing=""; for name in $(SYSTEM); do dpkg -s "$$name" >/dev/null 2>&1 || missing="$$missing $$name"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing$$missing ..."; \
		{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing; } >/dev/null; \
	else echo "Tests will need these programs, which only root can install:$$missing"; fi

demo: $(VENV)/.installed-serve ## Start the served platform and have it edit 24 drawn scenes
	@$(BIN)/careedit demo

docs: $(VENV)/.installed-dev ## Build the documentation site into the folder site
	@$(BIN)/python docs/site.py site && echo "Open site/index.html, or serve it: python -m http.server --directory site"

test: system $(VENV)/.installed-dev $(BIN)/helm ## Run every test but the long ones of test-clients, test-cluster and test-faults; one layer or file: make test TESTS=tests/unit
	@OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -m "not faults" $(WORKERS) $(TESTS)

# The Pythons of test-pythons, as commands or paths.
PYTHONS ?= python3.11 python3.12 python3.13

test-pythons: ## Run the unit tests with each Python of 3.11 to 3.13 that is found, in an environment of its own (.venv-3.12)
	@ran=""; for python in $(PYTHONS); do \
		version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || \
			{ echo "$$python was not found; its tests do not run."; continue; }; \
		echo "Python $$version:"; \
		$(MAKE) --no-print-directory test PYTHON="$$python" VENV=".venv-$$version" TESTS=tests/unit || exit 1; \
		ran="$$ran $$version"; \
	done; \
	if [ -z "$$ran" ]; then echo "No Python of 3.11 to 3.13 was found; install one, or name it: make test-pythons PYTHONS=/path/to/python3.12"; exit 1; fi; \
	echo "The unit tests passed with Python$$ran."

test-clients: $(VENV)/.installed-dev build/clients/litellm/.installed build/clients/gradio/.installed ## Put LiteLLM and Gradio in front of careedit (minutes)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/clients

test-cluster: SYSTEM += redis-server
test-cluster: system $(VENV)/.installed-dev ## Deploy a RayService's configuration on local Ray nodes and kill them (minutes)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/cluster

test-faults: SYSTEM += gcc libc6-dev
test-faults: system $(VENV)/.installed-dev ## Kill, stop, crowd and restart the served platform, TIMES=10 times over (about three hours)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --count $(TIMES) --repeat-scope session $(FAULTS)

bench-gpu: $(VENV)/.installed-plan ## Measure a GPU within 10 minutes, without a download (FAMILY=klein)
	@mkdir -p "$(OUT)"
	@timeout --signal=INT 600 $(BIN)/careedit bench gpu --family $(FAMILY) --seconds 480 \
		--out "$(OUT)/gpu-$(FAMILY).json" --plot "$(OUT)/gpu-$(FAMILY).png"

# The folder of the run, and the folder of what to commit: a run without training data and checkpoints.
GPU_RUN ?= runs/gpu
KEPT ?= runs/gpu-kept
# The run is stopped before ten minutes have passed, and what is finished by then is kept.
train-gpu: $(VENV)/.installed-serve ## Train the second edition of the tiny family on one GPU, in at most 10 minutes
	@export CAREEDIT_TINY_EDITION=2; status=0; \
	timeout --signal=INT --kill-after=10 570 $(BIN)/careedit train all --device cuda --budget-minutes 9 --out "$(GPU_RUN)" || status=$$?; \
	$(BIN)/careedit train keep "$(KEPT)" --out "$(GPU_RUN)" && exit $$status

check: $(VENV)/.installed-dev ## Check format, lint, types and import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## Format the code and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "careedit needs Python 3.11 or newer, and none was found; install python3.11."; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "careedit needs Python 3.11 or newer, and $(PYTHON) is older; run make PYTHON=python3.11."; exit 1; }
	@"$(PYTHON)" -m venv "$(VENV)" || \
		{ rm -rf "$(VENV)"; echo "$(PYTHON) cannot make a virtual environment; install python3-venv."; exit 1; }

# A stamp per extra: an install is repeated only when what it depends on has changed.
$(VENV)/.installed-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing careedit ($*) into $(VENV); the first time takes 2 to 3 minutes ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable ".$(if $(filter core,$*),,[$*])"
	@touch "$(VENV)/.installed-core" $(if $(filter dev,$*),"$(VENV)/.installed-serve") "$@"

# Programs of others that tests/clients starts, each in an environment of its own: their pins contradict each other's, and ours.
build/clients/%/.installed: tests/clients/%.txt | $(BIN)/python
	@echo "Installing $* into build/clients/$*; the first time takes 1 to 2 minutes ..."
	@rm -rf "build/clients/$*" && "$(BIN)/python" -m venv "build/clients/$*"
	@"build/clients/$*/bin/pip" install --quiet --disable-pip-version-check --requirement "$<"
	@touch "$@"

include docker/images.mk
