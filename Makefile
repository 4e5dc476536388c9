PY ?= python3
UV := $(shell command -v uv 2>/dev/null)
BIN := .venv/bin

.PHONY: demo test check bench chaos mutations clean
demo: .venv/.ok  ## The main job: thousands of real messages through a real Postgres
	@$(BIN)/pgtasks demo

test: .venv/.ok  ## All tests, on a Postgres of their own
	@$(BIN)/python -m pytest -q -n 2

check: .venv/.ok  ## Style, types, and which module may import which
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

ROUNDS ?= 3
bench: .venv/.bench  ## The benchmarks, with pictures, and with PEERS=1 other systems beside us; see docs/performance.md
	@$(BIN)/python -m benchmarks all $(if $(PEERS),peers) --rounds $(ROUNDS) $(if $(QUICK),--quick) \
		--json .venv/results.json --plots $(or $(PLOTS),.venv/plots) $(if $(WRITE),--write $(WRITE))

SECONDS ?= 600
chaos: .venv/.ok  ## Workers killed, frozen and cut off for minutes; see docs/reliability.md
	@PYTHONPATH=tests $(BIN)/python -m chaos $(FAULTS) --seconds $(SECONDS) \
		$(if $(SEED),--seed $(SEED)) $(if $(FAULTS),,--messages 10000) $(if $(WRITE),--write docs/reliability.md)

mutations: .venv/.ok  ## Take out one guard after the other; a test has to fail for each
	@PYTHONPATH=tests $(BIN)/python -m mutations $(GUARDS)

clean:
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The stamp is newer than pyproject.toml when the environment has what it asks for.
.venv/.ok: pyproject.toml
ifneq ($(UV),)
	@$(UV) venv -q --allow-existing --python ">=3.11" .venv
	@$(UV) pip install -q --python .venv -e '.[test]'
else
	@$(PY) -c 'import sys; sys.exit("pgtasks needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another: make PY=python3.12") if sys.version_info < (3, 11) else None'
	@$(PY) -m venv .venv
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[test]'
endif
	@touch $@

# What only the benchmarks' pictures need.
.venv/.bench: .venv/.ok
ifneq ($(UV),)
	@$(UV) pip install -q --python .venv -e '.[bench]'
else
	@$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[bench]'
endif
	@touch $@
