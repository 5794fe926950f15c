# `make run` and `make test` work on a fresh clone of a fresh machine: each makes .venv, installs and does its job.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS := 1

.PHONY: run test test-deployment test-browser test-slow check format reference docs clean

run: .venv/installed
	$(BIN)/softbeam run configs/quickstart.yaml

test: .venv/installed
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=10 -m "not slow and not deployment and not browser"

# Real processes: SuperLink, SuperNodes, nginx; what is not installed is skipped with a reason.
test-deployment: .venv/installed
	$(BIN)/pytest --durations=10 -m "deployment and not slow"

# Pages in a headless Chromium, that of the distribution or the one of `playwright install chromium`.
test-browser: .venv/browser
	$(BIN)/pytest -m browser

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

# Written from the schema, the help of the commands and the docstrings; a test fails where a page is not up to date.
reference: .venv/installed
	$(BIN)/python -m sim.reference.write docs/reference

# The site in build/site: every link is checked, and no page loads from elsewhere. The first time installs its builder.
docs: .venv/docs
	$(BIN)/python -m sim.reference.site gather build/pages
	NO_MKDOCS_2_WARNING=true $(BIN)/mkdocs build --strict
	$(BIN)/python -m sim.reference.site check build/site

.venv/docs: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

.venv/browser: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev,browser]"
	touch $@

# The constraints pin what was tested, torch among it: unpinned, it would pull gigabytes of CUDA.
.venv/installed: pyproject.toml constraints.txt
	@echo "Installing into .venv what constraints.txt pins, PyTorch among it: two to five minutes."
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --progress-bar on --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv runs .softbeam build
