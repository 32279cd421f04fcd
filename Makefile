# Two commands on a fresh machine with Python 3.11 or newer, pip and make: `make demo`, `make test`.
# Everything lives in .venv; delete it to start afresh.
#   PYTHON=python3.12 make demo     another interpreter
#   make test-quick ROOM=storage     the tests of one room of the package
#   TORCH="torch torchvision --index-url URL" make demo     another build of torch, say one for CPUs

PYTHON ?= python3
TORCH ?= torch torchvision
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

ROOM ?=

.PHONY: demo test test-quick test-slow lint format docs bench constraints clean

demo: $(VENV)/.demo
	$(BIN)/xnn demo --out demo
	@echo "The program is $(BIN)/xnn: 'source $(BIN)/activate', then 'xnn --help'."

test: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow" -n auto --dist loadfile

# The tests of one room or app, for while you work on it: make test-quick ROOM=storage
test-quick: $(VENV)/.dev
	@test -n "$(ROOM)" -a -d "tests/$(ROOM)" || { echo "Name a room: make test-quick ROOM=storage, or one of"; \
	  cd tests && ls -d [a-z]*/ apps/*/ | sed 's:/$$::' | grep -v __pycache__; exit 2; }
	$(BIN)/python -m pytest -q -m "not slow" -n auto --dist worksteal "tests/$(ROOM)"

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

bench: $(VENV)/.demo
	$(BIN)/python perf/fit_ablation.py --data solar --out runs/bench

# constraints.txt from what is installed here; after `make test` and `make test-slow` passed with it.
constraints: $(VENV)/.dev $(VENV)/.docs
	$(PIP) --editable '.[benchmark,demo,docs,formats,huggingface,peers,ray,study]'
	$(BIN)/python perf/dependencies.py --write

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis site

# A stamp file per group: made again when pyproject.toml changes, left half-done by no interruption.
$(VENV)/.torch:
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; name it: make PYTHON=python3.11')"
	$(PYTHON) -m venv $(VENV)
	@echo "Installing torch; this is the long step."
	$(PIP) $(TORCH)
	touch $@

$(VENV)/.demo: pyproject.toml | $(VENV)/.torch
	$(PIP) --editable '.[demo]'
	touch $@

# pip reads dependency groups from version 25.1 on.
$(VENV)/.dev: pyproject.toml | $(VENV)/.torch
	$(PIP) --upgrade 'pip>=25.1'
	$(PIP) --editable '.[demo,study,ray]' --group dev
	touch $@

$(VENV)/.docs: pyproject.toml | $(VENV)/.torch
	$(PIP) --editable '.[docs]'
	touch $@
