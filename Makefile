# muxrec: `make` lists what can be made. VENV, DEVICE (cpu or gpu), PYTHON and BENCH_OUT can be overridden.

VENV ?= .venv
DEVICE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(DEVICE)
BENCH_OUT ?= docs

.DEFAULT_GOAL := help
.PHONY: help preflight setup demo test lint types bench clean

help: ## list what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | \
	    while IFS='|' read -r goal what; do printf '%-14s %s\n' "$$goal" "$$what"; done

preflight:
	@sh requirements/check_machine.sh "$(PYTHON)" "$(VENV)"

$(STAMP): pyproject.toml requirements/constraints.txt requirements/install.sh requirements/fbgemm-gpu-shim/pyproject.toml | preflight
	@echo "setup: installing into $(VENV) for $(DEVICE); about 3 GB, some minutes"
	@test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	@sh requirements/install.sh "$(BIN)/python" "$(DEVICE)"
	@touch $@

setup: $(STAMP) ## make the environment in .venv
	@$(BIN)/muxrec doctor --quick

demo: preflight $(STAMP) ## logs to served neighbours on a small made-up shop
	@$(BIN)/muxrec demo

test: preflight $(STAMP) ## run every test that this machine can run
	@$(BIN)/python -m pytest

lint: $(STAMP) ## style, format and who may import whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

types: $(STAMP) ## type checks
	@$(BIN)/pyright

bench: $(STAMP) ## measurements behind the tables in docs/
	@$(BIN)/muxrec bench hash --out $(BENCH_OUT)
	@$(BIN)/muxrec bench train-step --out $(BENCH_OUT)
	@$(BIN)/muxrec bench onnx --out $(BENCH_OUT)
	@$(BIN)/muxrec bench serve
	@test -z "$(MUXREC_DATA)" || $(BIN)/muxrec bench pairs --out $(BENCH_OUT)
	@test -n "$(MUXREC_DATA)" || echo "bench pairs was left out: set MUXREC_DATA"

clean: ## remove caches and the demo's run; the environment stays
	rm -rf runs/demo .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist
	find platform kernels jobs serving tests -name __pycache__ -type d -prune -exec rm -rf {} +
