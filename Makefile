# Two commands for a fresh machine with Python 3.11+ and git: `make quickstart` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
# The order of the tests, and what they draw from global generators: `make test SEED=2` has others.
SEED ?= 1
PYTEST := -m pytest -q -n 2 --dist loadfile --randomly-seed=$(SEED)

# Part of the tests, for the lowest supported and for the newest versions: what meets the API of the other libraries.
MIN_TESTS := $(patsubst %,tests/test_%.py,losses noising trainer families text_encoders adapters alarms checkpoints data \
	buckets cards memory scorers chat scale versions train_script step precision lora_files guidance loader cache reference \
	library_mistakes local_editor host_waits hostile one_decoder evaluate_script)
# The random weights of an older transformers do not collapse in it.
MIN_TESTS += --deselect tests/test_train_script.py::test_a_collapse_stops_with_a_checkpoint_where_asked

.PHONY: quickstart test test-slow test-min test-newest lint bench
quickstart: .venv/.quickstart
	$(BIN)/python examples/text_preference/quickstart.py
	@echo 'To go on in this environment: source .venv/bin/activate; then diffusers-tpo --help'

test: .venv/.test
	$(BIN)/python $(PYTEST) -m "not slow"

test-slow: .venv/.test
	$(BIN)/python $(PYTEST) -m slow

test-min: .venv-min/.test
	.venv-min/bin/python $(PYTEST) -m "not slow" $(MIN_TESTS)

# The newest release of everything but torch, which would be gigabytes; asked for anew each time.
test-newest:
	test -x .venv-newest/bin/python || $(PYTHON) -m venv .venv-newest
	grep '^torch==' constraints.txt > .venv-newest/constraints.txt
	.venv-newest/bin/python -m pip install --quiet --upgrade --upgrade-strategy eager \
		--constraint .venv-newest/constraints.txt --editable ".[test]"
	.venv-newest/bin/python .ci/newest.py
	.venv-newest/bin/python $(PYTEST) -m "not slow" $(MIN_TESTS)

bench: .venv/.test
	$(BIN)/python benchmarks/bench.py

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/.test: EXTRAS := [test]
.venv/.%: setup.cfg constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".$(EXTRAS)"
	touch $@

.venv-min/.test: setup.cfg .ci/floors.py
	test -x .venv-min/bin/python || $(PYTHON) -m venv .venv-min
	$(PYTHON) .ci/floors.py > .venv-min/constraints.txt
	.venv-min/bin/python -m pip install --quiet --constraint .venv-min/constraints.txt --editable ".[test]"
	touch $@
