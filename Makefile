# make demo   install, run the recipes on the embedded digits, end with the path of the page
# make test   install, run the default tests
# make check  the same plus format, lint, types and layers
PYTHON ?= python3
BIN    := .venv/bin
.PHONY: demo test check clean
# with it, every process would compile the modules of torch anew
unexport PYTHONDONTWRITEBYTECODE
demo: .venv/.installed
	$(BIN)/python -m lowland run demo
test: .venv/.installed
	$(BIN)/python -m pytest -n auto --dist loadfile
check: .venv/.checkers test
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/basedpyright
	$(BIN)/lint-imports
.venv/.installed: pyproject.toml constraints.txt setup.py $(wildcard src/lowland/control/packing/*.[ch])
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt $(PIP_ARGS) -e '.[test]'
	@touch $@
.venv/.checkers: .venv/.installed
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt $(PIP_ARGS) -e '.[dev]'
	@touch $@
clean:
	rm -rf .venv
