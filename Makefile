# Commands for people. Each target first sets up .venv, if it is not up to date.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LM_EVAL := .venv-lm-eval
SYSTEM := $(shell uname -s)
# The driver of an NVIDIA GPU brings this command.
NVIDIA_SMI := $(shell command -v nvidia-smi)
# PINNED=1 takes the base images by digest; .env still has the last word.
COMPOSE := docker compose $(if $(PINNED),--env-file images.lock $(if $(wildcard .env),--env-file .env)) \
	$(if $(NVIDIA_SMI),,-f docker-compose.yml -f compose.cpu.yml)
export REVISION ?= $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
SCHEMATHESIS := .venv-schemathesis
PEERS := .venv-peers
LOCUST := .venv-locust
AUDIT := .venv-audit
PIP := $(BIN)/python -m pip --disable-pip-version-check
# pip asks either all packages of a command for their hashes or none. So torch, whose build differs between
# machines, has a command of its own, which finds all that it needs installed but CUDA.
FROM_LOCK := install --quiet --no-deps --require-hashes -r
LOCKED := requirements-web requirements requirements-dev requirements-lm-eval requirements-peers requirements-schemathesis \
	requirements-audit requirements-flower requirements-otel requirements-locust
# PyTorch's own index has wheels without CUDA; the usual wheels for Linux bring CUDA along.
CPU_TORCH_INDEX := https://download.pytorch.org/whl/cpu
TORCH = "$$(grep '^torch==' requirements.txt)"
INSTALL_TORCH = $(if $(TORCH_INDEX),$(PIP) install --quiet --no-deps --extra-index-url $(TORCH_INDEX) \
	$(TORCH) &&) $(PIP) install --quiet -c constraints.txt $(TORCH)
HAS_NO_USE_FOR_CUDA = $(and $(filter Linux,$(SYSTEM)),$(if $(NVIDIA_SMI)$(TORCH_INDEX),,yes))
HAS_TORCH = $(wildcard $(VENV)/lib/python*/site-packages/torch)
WARN_OF_CUDA = $(if $(HAS_NO_USE_FOR_CUDA),$(if $(HAS_TORCH),,printf '%s\n' \
	"No NVIDIA driver was found, but PyTorch for Linux comes with CUDA: 2.7 GB to download, 5 GB on disk." \
	"To download 0.2 GB without CUDA instead, press Ctrl-C and run this:" \
	"  make $(MAKECMDGOALS) TORCH_INDEX=$(CPU_TORCH_INDEX)"))
# GPU_PYTHON=python3 names the Python of a machine that brings PyTorch; nothing is installed then.
# GPU_STEPS are arguments of bench.first_gpu.
GPU_PYTHON ?=
GPU_STEPS ?=
GPU_PYTHON_OR_OURS = $(or $(GPU_PYTHON),$(BIN)/python)
FOR_GPU = $(if $(GPU_PYTHON),,$(VENV)/development)
WHEELS ?= dist/gpu-wheels
WHEEL_DIR ?= dist
RUNTIME := requirements.lock requirements.txt constraints.txt

.DEFAULT_GOAL := help
.PHONY: help venv run prefetch prefetch-up test test-unit lint format sync-client sync-alerts storm chaos soak bench bench-peers serving-lab locust train model-wheel test-gpu test-lm-eval test-openapi bench-gpu gpu-wheels
.PHONY: constraints pin-images lock sbom audit clean
.PHONY: build-runtime build-dev run-runtime run-dev shell-dev up down logs smoke acceptance dist test-docker

help:
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/runtime ## start everything on this machine; Ctrl-C stops it
	@exec $(BIN)/python -m deploy.run

# Reads the model's name from the environment, as run does; prefetch-up reads it from .env, as up does.
prefetch: $(VENV)/runtime ## download the weights of EVASCORE_MODEL before the first run; resumes
	@exec $(BIN)/python -m worker.prefetch

venv: $(VENV)/runtime ## set up .venv and nothing else

# Whole files, in order: a service that a file shares starts once, and Playwright's event loop, which
# never ends, comes last.
test: $(VENV)/development ## run all tests, three files at a time
	@exec env OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# No web server, worker or browser. CI runs it at every push.
test-unit: $(VENV)/development ## run the tests of single modules and of the documents, in minutes
	@exec env OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n 3 --dist loadfile tests/contract tests/unit

lint: $(VENV)/development ## check format, rules, types (macOS too) and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/python client/unasync.py --check
	$(BIN)/mypy
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin
	$(BIN)/lint-imports

format: $(VENV)/development ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

sync-client: $(VENV)/development ## generate the synchronous client from the asynchronous one
	$(BIN)/python client/unasync.py

sync-alerts: ## write the alert rules for Kubernetes from deploy/monitoring/alerts.yml
	@$(PYTHON) -m deploy.prometheus_rule

model-wheel: $(VENV)/development ## build the wheel evascore-model, for transformers' Auto classes, in dist/
	@$(PIP) wheel --quiet --no-deps --no-build-isolation --wheel-dir $(WHEEL_DIR) ./model_package
	@ls $(WHEEL_DIR)/evascore_model-*.whl

storm: $(VENV)/development ## score 2,000 texts while worker and Redis are killed again and again
	@exec $(BIN)/python -m tests.faults.storm

chaos: $(VENV)/development ## break all parts at random for SECONDS, drawn from SEED, and check every promise
	@exec $(BIN)/python -m tests.faults.chaos $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) $(if $(MAX_LINES),--max-lines $(MAX_LINES))

soak: $(VENV)/development ## put mixed load on a service for MINUTES, and measure memory and latency
	@exec $(BIN)/python -m bench.soak $(if $(MINUTES),--minutes $(MINUTES))

bench: $(VENV)/development ## measure speed, latency, throughput and the worker's own cost
	$(BIN)/python -m bench.model
	$(BIN)/python -m bench.latency
	$(BIN)/python -m bench.throughput
	$(BIN)/python -m bench.worker_overhead
	$(BIN)/python -m bench.host_time
	$(BIN)/python -m bench.shared_context

bench-peers: $(VENV)/development $(PEERS)/installed ## compare with LitServe and FastAPI around the same model
	$(BIN)/python -m bench.peers

serving-lab: $(VENV)/development $(PEERS)/installed ## see queues, micro-batches and workers at work, in minutes
	@exec $(BIN)/python -m bench.serving_lab $(if $(SECONDS),--seconds $(SECONDS))

# The service may be anybody's: the locust file uses only the HTTP API.
locust: $(LOCUST)/installed ## load the service at URL with USERS of locust for SECONDS
	@exec $(LOCUST)/bin/locust -f bench/outsiders/locustfile.py --headless --host $(or $(URL),http://127.0.0.1:8000) \
	--users $(or $(USERS),16) --spawn-rate $(or $(USERS),16) --run-time $(or $(SECONDS),30)s --stop-timeout 300

test-gpu: $(FOR_GPU) ## run the tests that need a GPU
	@exec $(GPU_PYTHON_OR_OURS) -m pytest -m gpu $(if $(GPU_PYTHON),-o filterwarnings=default)

test-lm-eval: $(VENV)/development $(LM_EVAL)/installed ## run the tests with the stock lm-eval
	@exec $(BIN)/python -m pytest tests/lm_eval

test-openapi: $(VENV)/development $(SCHEMATHESIS)/installed ## test the API with schemathesis
	@exec $(BIN)/python -m pytest tests/schemathesis

bench-gpu: $(FOR_GPU) ## measure the machine, the kernels and the model on this GPU, in eight minutes
	@exec $(GPU_PYTHON_OR_OURS) -m bench.first_gpu $(GPU_STEPS)

gpu-wheels: ## fill the folder WHEELS with what a GPU machine without a package index lacks
	@$(PYTHON) -m bench.first_gpu.wheels $(WHEELS)

train: $(VENV)/development ## train the demo checkpoint; hours, on Debian 12 with libsword-utils
	$(BIN)/python -m model.training.corpus
	OMP_WAIT_POLICY=passive $(BIN)/python -m model.training.train
	$(BIN)/python -m model.training.export
	$(BIN)/python -m model.training.evaluate
	$(BIN)/python -m bench.learning_curves

build-runtime: ## build the container images
	$(COMPOSE) build

build-dev: $(VENV)/development ## set up .venv with what tests and linters need

run-runtime: up ## the same as up

run-dev: run ## the same as run

shell-dev: $(VENV)/development ## open a shell in which .venv is active
	@PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)" exec $${SHELL:-sh}

up: ## start everything in containers; returns when it is ready to score
	$(COMPOSE) up --detach --build --wait

# The password of Redis does not exist yet, and downloading does not need it.
prefetch-up: ## download the weights into the containers' volume before the first up
	$(COMPOSE) run --rm --build --no-deps worker \
	env --unset=EVASCORE_REDIS_PASSWORD_FILE python -m worker.prefetch

down: ## stop all containers, profiles too; accepted jobs are kept
	$(COMPOSE) --profile '*' down

logs: ## follow the logs of the containers
	$(COMPOSE) --profile '*' logs --follow --tail 100

# The digests of images, for every platform. Needs a registry.
pin-images: ## write the digests of the base images into images.lock, for PINNED=1
	@$(PYTHON) deploy/pin_images.py

smoke: ## score one text with the service on port 8000
	@{ [ -z "$$EVASCORE_API_KEY" ] || printf 'Authorization: Bearer %s\n' "$$EVASCORE_API_KEY"; } \
	| curl --fail-with-body -sS -H @- 'localhost:8000/score?wait=30' -H 'Content-Type: text/plain' -d 'It scores.'

acceptance: ## in a clean clone: build, start, compare scores, crash, restart
	@clone=$$(mktemp -d) && trap 'rm -rf "$$clone"' EXIT && git clone -q . "$$clone/evascore" \
	&& $(MAKE) -C "$$clone/evascore" test-docker

dist: build-runtime ## write the images to dist/images.tar
	@mkdir -p dist && docker save -o dist/images.tar $$($(COMPOSE) config --images)

test-docker: $(VENV)/development ## run the tests that need a Docker engine
	@exec $(BIN)/python -m pytest tests/docker

constraints: $(VENV)/development ## pin the transitive packages in constraints.txt
	@sed 's/;.*//' requirements.txt requirements-web.txt > constraints.named
	@sed -n 's/;.*//p' requirements-dev.txt >> constraints.named
	@$(PIP) freeze --exclude-editable | grep -vE '^(torch|nvidia-|cuda-)' \
	| grep -vxF -f constraints.named > constraints.new
	@sed -n '/^#/p' constraints.txt > constraints.head
	@cat constraints.head constraints.new > constraints.txt
	@rm constraints.head constraints.named constraints.new

# uv resolves for all platforms at once. Torch and its CUDA are left out.
lock: $(AUDIT)/installed ## pin all packages but torch with their hashes in requirements*.lock
	@for name in $(LOCKED); do \
	$(AUDIT)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate --no-emit-package torch --no-emit-package evascore -o $$name.resolved $$name.txt \
	&& awk '/^[a-z]/ {keep = !/^(nvidia|cuda)-/ || /^nvidia-ml-py==/} keep' $$name.resolved > $$name.lock \
	&& rm $$name.resolved || exit 1; done

sbom: $(AUDIT)/installed ## list the packages of the service in dist/sbom.json (CycloneDX)
	@mkdir -p dist
	@{ cat requirements.lock && grep '^torch==' requirements.txt; } \
	| PYTHONWARNINGS=ignore::UserWarning $(AUDIT)/bin/cyclonedx-py requirements - \
	--pyproject pyproject.toml --output-reproducible --output-file dist/sbom.json

# Needs a network. Its answer changes without a commit, so CI does not run it.
audit: $(AUDIT)/installed ## ask for known weaknesses of the locked packages
	@$(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes -r requirements-dev.lock
	@$(AUDIT)/bin/pip-audit --strict --disable-pip --no-deps -r requirements.txt

clean: ## remove .venv and caches; the data folder stays
	rm -rf $(VENV) $(LM_EVAL) $(SCHEMATHESIS) $(PEERS) $(LOCUST) $(AUDIT) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# A stamp is newer than the requirements that were installed.
$(VENV)/runtime: $(RUNTIME) | $(BIN)/python
	@echo "Installing what evascore needs into $(VENV) (once; some minutes on a slow line)."
	@$(WARN_OF_CUDA)
	@$(PIP) $(FROM_LOCK) requirements.lock
	@$(INSTALL_TORCH)
	@touch $@

$(VENV)/development: requirements-dev.lock client/pyproject.toml $(RUNTIME) | $(BIN)/python
	@echo "Installing what evascore and its tests need into $(VENV) (once)."
	@$(WARN_OF_CUDA)
	@$(PIP) $(FROM_LOCK) requirements-dev.lock
	@$(INSTALL_TORCH)
	@$(PIP) install --quiet --no-deps --no-build-isolation -e ./client
	@touch $(VENV)/runtime $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "evascore needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

# 60 packages, some minutes; only these tests and bench.lm_eval need them.
$(LM_EVAL)/installed: requirements-lm-eval.lock
	@$(PYTHON) -m venv $(LM_EVAL)
	@echo "Installing lm-eval into $(LM_EVAL) (once; some minutes on a slow line)."
	@$(LM_EVAL)/bin/python -m pip --disable-pip-version-check $(FROM_LOCK) $<
	@$(LM_EVAL)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps \
	--no-build-isolation -e ./client
	@touch $@

$(SCHEMATHESIS)/installed: requirements-schemathesis.lock
	@$(PYTHON) -m venv $(SCHEMATHESIS)
	@$(SCHEMATHESIS)/bin/python -m pip --disable-pip-version-check $(FROM_LOCK) $<
	@touch $@

$(LOCUST)/installed: requirements-locust.lock
	@$(PYTHON) -m venv $(LOCUST)
	@echo "Installing locust into $(LOCUST) (once)."
	@$(LOCUST)/bin/python -m pip --disable-pip-version-check $(FROM_LOCK) $<
	@touch $@

$(AUDIT)/installed: requirements-audit.lock
	@$(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/python -m pip --disable-pip-version-check $(FROM_LOCK) $<
	@touch $@

# A path file lends it the packages of $(VENV), PyTorch among them: only what lacks is downloaded.
$(PEERS)/installed: requirements-peers.lock | $(VENV)/development
	@$(PYTHON) -m venv $(PEERS)
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	> "$$($(PEERS)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/evascore.pth"
	@echo "Installing LitServe and FastAPI into $(PEERS) (once)."
	@$(PEERS)/bin/python -m pip --disable-pip-version-check $(FROM_LOCK) $<
	@touch $@
