# Two commands for a fresh machine with Python 3.10+ and git: `make quickstart` and `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test lint
quickstart: .venv/.quickstart
	$(BIN)/python examples/text_preference/quickstart.py

test: .venv/.test
	$(BIN)/python -m pytest -q

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.venv/.test: EXTRAS := [test]
.venv/.%: setup.cfg constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".$(EXTRAS)"
	touch $@
