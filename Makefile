# SPDX-License-Identifier: Apache-2.0
# Every target does its own set-up. `make help` says what there is.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules

BIN := .venv/bin
PYTHON := $(BIN)/python
PYTEST := $(PYTHON) -m pytest -q
TOOLS := packaging/tools
SOURCES := proto/src host/src guest/src tests $(TOOLS) packaging/ansible
# Tests that need no guest: they run on both cores.
QUICK := tests/unit tests/kit/tests tests/contract tests/component tests/packaging
# What depends on the versions of gRPC, protobuf, pyudev, structlog and prometheus_client: both ends' own use of them, and
# their meeting. The build, the packages, the lab, the link, the core (which import contracts keep free of all of them), and
# what the host makes of words that it has read, have nothing to find there. Debian 12's guest, on which the end-to-end tests
# run, has the oldest.
QUICK_OLDEST := tests/unit/guest tests/unit/host tests/contract \
	$(foreach part,end_to_end events hostile_floods metrics,tests/component/test_$(part).py)
NOT_OLDEST := --ignore tests/unit/host/core --ignore tests/unit/host/qmp
PROJECTS := pyproject.toml proto/pyproject.toml host/pyproject.toml guest/pyproject.toml

# gRPC's fork handlers only cost time and warnings: the tests start processes, they don't fork.
export GRPC_ENABLE_FORK_SUPPORT := 0

# Python keeps what it has compiled, whatever this shell says otherwise: the tests start thousands of processes, and each
# would compile gRPC, protobuf and our own sources again (0.2 s of CPU each). `make clean` takes the files away.
unexport PYTHONDONTWRITEBYTECODE

# Tests without VMs: many wait for an end that is meant (a timeout, a silence), so two more at once than there are cores.
NO_VM := -n $(shell echo $$(($$(nproc) + 2))) -m "not e2e and not crowd"
CROWD := -m "crowd and not e2e"

# With ONLY=EXPR the tests whose names match; with ALL=1 also the slow ones.
E2E_MARKS := $(if $(ALL),e2e,e2e and not slow)
E2E_ONLY := $(if $(ONLY),-k "$(ONLY)")

# Chaos: where the choices come from, how many operations, which of them is the first, which machine (q35, debian13, pseries).
SEED ?= 1
OPS ?= 30
FIRST ?= 1
GUEST ?= q35

step = @printf '%-10s %s\n' '$(1)' '$(2)'

##@ What there is
.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nVariables: ONLY=EXPR (e2e: names that match), ALL=1 (e2e: the slow ones too),\n'
	@printf '           SEED=N OPS=N FIRST=N GUEST=q35|debian13|pseries|libvirt (chaos),\n'
	@printf '           FLEET=1, PEERS=1, AUTOSCALE=1 (bench)\n'

##@ The two commands of the README
.PHONY: demo test
demo: setup deb ## Boot a VM and resize it, end to end
	@PYTHONPATH=tests $(PYTHON) -m kit.demo

test: check quick test-oldest e2e ## All that CI runs

##@ Parts of the tests
.PHONY: quick unit contract component packaging ansible test-oldest e2e workloads bench simulate chaos
quick: setup deb man ## Unit, contract, component and packaging tests
	$(call step,test,$(QUICK))
	@$(PYTEST) $(NO_VM) $(QUICK)
	@$(PYTEST) $(CROWD) $(QUICK)

unit: setup ## Unit tests
	@$(PYTEST) $(NO_VM) tests/unit tests/kit/tests

contract: setup ## Host client against guest servicer
	@$(PYTEST) $(NO_VM) tests/contract

component: setup ## Real vcpuctl and vcpud against a fake QEMU and a fake sysfs
	@$(PYTEST) $(NO_VM) tests/component
	@$(PYTEST) $(CROWD) tests/component

packaging: setup deb man ## Debs, unit, man pages, completions, wheels
	@$(PYTEST) -m "not e2e" tests/packaging

ansible: setup deb ## The Ansible collection: its modules, Ansible's own checks on the oldest version and the newest, plays
	@$(PYTEST) tests/unit/ansible tests/component/test_ansible_*.py
	@$(PYTEST) --timeout 3000 -m e2e $(wildcard tests/e2e/test_ansible_*.py)

test-oldest: .venv-oldest/.ready ## What depends on the versions of libraries, on the oldest ones
	$(call step,test,$(QUICK_OLDEST) on the oldest supported versions)
	@.venv-oldest/bin/python -m pytest -q $(NO_VM) -p no:cacheprovider $(NOT_OLDEST) $(QUICK_OLDEST)

e2e: setup deb ## Real QEMU, real guests, the built packages
	$(call step,test,tests/e2e)
	@$(PYTEST) -n auto --maxprocesses 4 --maxschedchunk 1 --timeout 900 -m "$(E2E_MARKS)" $(E2E_ONLY) tests/e2e

workloads: setup deb ## What guests' programs make of CPUs that come and go, into docs/workloads.md
	@PYTHONPATH=tests $(PYTHON) -m kit.workloads $(if $(GUESTS),$(foreach guest,$(GUESTS),--guest $(guest)))

bench: setup deb ## Measure, into build; with BASE=COMMIT, FLEET=1, PEERS=1 or AUTOSCALE=1: see CONTRIBUTING
	@PYTHONPATH=tests $(PYTHON) -m kit.bench $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(BASE),--base $(BASE)) $(if $(FLEET),--fleet) $(if $(PEERS),--peers) $(if $(AUTOSCALE),--autoscale)

simulate: setup ## The autoscaler's policy beside others' rules in simulated time, into docs/reports
	@PYTHONPATH=tests $(PYTHON) -m kit.autoscale

chaos: setup deb ## Random operations and faults on a real VM, into build/chaos.json
	@PYTHONPATH=tests $(PYTHON) -m kit.chaos --seed $(SEED) --ops $(OPS) --first $(FIRST) --guest $(GUEST)

##@ Checks
.PHONY: check fmt lint type imports rules contract-check spell
check: lint type imports rules contract-check spell ## Format, lint, types, imports, house rules, contract, spelling

fmt: setup ## Put the sources in form
	@$(BIN)/ruff format --quiet $(SOURCES)
	@$(BIN)/ruff check --quiet --fix $(SOURCES)

lint: setup ## Format and lint
	$(call step,check,ruff)
	@$(BIN)/ruff format --quiet --diff $(SOURCES)
	@$(BIN)/ruff check --quiet $(SOURCES)

type: setup ## Types
	$(call step,check,mypy --strict)
	@$(BIN)/mypy --no-error-summary $(SOURCES)

imports: setup ## Who may import whom
	$(call step,check,import contracts)
	@$(BIN)/lint-imports --no-logo >build/imports.log 2>&1 || { cat build/imports.log; exit 1; }

rules: setup ## House rules
	$(call step,check,house rules and links)
	@$(PYTHON) $(TOOLS)/rules.py

contract-check: setup ## The .proto: lint, backwards compatibility, generated code fresh
	$(call step,check,contract)
	@$(BIN)/buf lint proto
	@$(BIN)/buf breaking proto --against ".git#ref=$$($(TOOLS)/baseline.sh),subdir=proto"
	@$(TOOLS)/proto.sh --check

spell: setup ## Spelling
	$(call step,check,spelling)
	@git ls-files -z --cached --others --exclude-standard | xargs -0 $(BIN)/codespell

##@ What is made
.PHONY: setup proto deb man dist pins clean
setup: build/setup/packages .venv/.ready ## Everything that the other targets need
	@:

proto: setup ## Generate the contract's code again
	@$(TOOLS)/proto.sh

deb: setup ## The three Debian packages, into build/deb
	@$(PYTHON) $(TOOLS)/deb.py

man: setup ## Man pages and shell completions, into build/man and build/completions
	@$(PYTHON) $(TOOLS)/man.py build

dist: setup ## All that a release consists of, into build/dist: the same bytes from the same tree
	@PYTHONPATH=tests $(PYTHON) $(TOOLS)/dist.py

pins: setup ## Look for newer versions of what is used, into requirements/
	@$(TOOLS)/pins.sh

clean: ## Remove all that was made here (downloads stay cached)
	@rm -rf build .venv .venv-oldest .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find proto host guest tests packaging -name __pycache__ -prune -exec rm -rf {} +

build/setup/packages: $(TOOLS)/setup.sh $(wildcard tests/kit/lab/*.py tests/kit/lab/*/*.py)
	@$(TOOLS)/setup.sh packages
	@touch $@

.venv/.ready: requirements/uv.txt requirements/dev.txt $(PROJECTS) $(TOOLS)/setup.sh | build/setup/packages
	@$(TOOLS)/setup.sh venv .venv requirements/dev.txt
	@touch $@

.venv-oldest/.ready: requirements/uv.txt requirements/oldest.txt $(PROJECTS) $(TOOLS)/setup.sh | build/setup/packages
	@$(TOOLS)/setup.sh venv .venv-oldest requirements/oldest.txt
	@touch $@
