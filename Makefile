# Everything a fresh machine needs: Python 3.11 or newer with pip, and make.
#   make demo   the demo agent on a real language model on this CPU, asked through the openai client
#   make test   all tests but the long ones

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NODE_DIR := tests/conformance/node

FLOORS := .venv-floors

.PHONY: demo test cover check fmt golden bench storm sockets floors clean

demo: $(VENV)/.demo
	$(BIN)/python -m agent_server.demo $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

cover: $(VENV)/.dev  # the same, and what of the code they ran, subprocesses included
	$(BIN)/python -m pytest -n 2 --dist loadgroup --cov --cov-report=term $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: $(VENV)/.dev  # rewrites the golden files; review the diff
	$(BIN)/python -m pytest tests/golden --update-golden $(ARGS)

bench: $(VENV)/.dev
	$(BIN)/python -m tests.benchmarks $(ARGS)

storm: $(VENV)/.dev  # 2,000 open streams whose clients vanish together, ten times: memory, seconds, what is left
	$(BIN)/python -m tests.benchmarks.storm 2000 10 memory
	$(BIN)/python -m tests.benchmarks.storm 2000 10 sqlite

sockets: $(VENV)/.dev  # 1,000 WebSockets with a token a second: added latency of each wire
	for wire in agui.v1 ai-sdk.v1 responses.v1 langchain.v2; do \
		$(BIN)/python -m tests.benchmarks.sockets 1000 10 $$wire || exit 1; done

floors: $(VENV)/bin/python  # the tests on the oldest versions that pyproject.toml allows
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv venv --quiet --clear --seed $(FLOORS)
	$(BIN)/uv pip install --quiet --python $(FLOORS) --resolution lowest-direct -e '.[dev]'
	$(FLOORS)/bin/python -m pytest -n 2 --dist loadgroup tests/unit tests/golden tests/properties tests/faults $(ARGS)

clean:
	rm -rf $(VENV) $(FLOORS) $(NODE_DIR)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[local,openai]'
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	touch $@
