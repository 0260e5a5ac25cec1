# make demo | make test | make lint | make bench        (all of them make the environment if it is not there)
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench environment

demo: environment
	$(BIN)/branchynet train experiment=b_lenet_digits_cluttered

test: environment
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

lint: environment
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: environment
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

environment: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	touch $@
