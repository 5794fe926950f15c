# `make run` and `make test` work on a fresh clone of a fresh machine: each makes .venv, installs and does its job.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS := 1

.PHONY: run test test-deployment test-slow check format clean

run: .venv/installed
	$(BIN)/softbeam run configs/quickstart.yaml

test: .venv/installed
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10 -m "not slow and not deployment"

# Real processes: SuperLink, SuperNodes, nginx; what is not installed is skipped with a reason.
test-deployment: .venv/installed
	$(BIN)/pytest -m "deployment and not slow"

test-slow: .venv/installed
	$(BIN)/pytest -m slow

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_architecture.py

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The constraints pin what was tested, torch among it: unpinned, it would pull gigabytes of CUDA.
.venv/installed: pyproject.toml constraints.txt
	@echo "Installing into .venv what constraints.txt pins, PyTorch among it: two to five minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --progress-bar on --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv runs .softbeam
