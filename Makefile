# Everything from a fresh clone: `make demo`, `make test`. Needs Python 3.10+ (with venv) and a C++17 compiler.
# PYTHON=python3.12 chooses another interpreter; SEEWHY_WERROR=ON makes compiler warnings errors, as CI does.

PYTHON ?= python3
SEEWHY_WERROR ?= OFF

VENV := .venv
PIP := $(VENV)/bin/python -m pip
INSTALL := $(PIP) install --quiet --constraint constraints.txt --build-constraint constraints.txt

# What an installation is made of.
SOURCES := pyproject.toml constraints.txt CMakeLists.txt LICENSE NOTICE \
	$(sort $(shell find csrc engine export -type f -not -path '*/__pycache__/*' -not -path '*/.*'))

# Stamps. Their names change with the list of sources, so that a file that is gone counts as a change. What `demo` needs
# is part of what the tests need, so the larger installation, once there, serves both.
PIP_STAMP := $(VENV)/.pip
KEY := $(shell echo $(SEEWHY_WERROR) $(SOURCES) | cksum | cut -d ' ' -f 1)
DEV := $(VENV)/.dev-$(KEY)
SMALL := $(VENV)/.demo-$(KEY)
DEMO := $(if $(wildcard $(VENV)/.dev-*),$(DEV),$(SMALL))

# Test modules side by side, one thread each: most of their time goes into PyTorch's traces, which have one anyway. Every
# process takes up to 3 GiB.
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-all zoo bench lint wheel clean

help:
	@echo 'make demo      export a network with real weights and explain photographs with it; results in demo/'
	@echo 'make test      run the tests that take seconds each'
	@echo 'make test-slow run the others: large networks, sanitizers, packages'
	@echo 'make test-all  run both'
	@echo 'make zoo       export every model of docs/reference/models.md from scratch and write that page; takes hours'
	@echo 'make bench     measure SeeWhy beside other tools and write docs/performance/benchmarks.md; takes over an hour'
	@echo 'make lint      ruff, mypy and import-linter'
	@echo 'make wheel     build a wheel and an sdist into dist/'
	@echo 'make clean     remove everything that these made, $(VENV) included'

demo: $(DEMO)
	$(VENV)/bin/seewhy demo -o demo

test: $(DEV)
	$(PYTEST) -m 'not slow'

test-slow: $(DEV)
	$(PYTEST) -m slow

test-all: $(DEV)
	$(PYTEST)

zoo: $(DEV)
	$(VENV)/bin/python benchmarks/compatibility/zoo.py

bench: $(DEV)
	$(VENV)/bin/python benchmarks/peers/compare_tools.py

lint: $(DEV)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	PYTHONPATH=engine:export $(VENV)/bin/lint-imports --no-cache

wheel: $(DEV)
	$(VENV)/bin/python -m build --outdir dist

clean:
	rm -rf $(VENV) .bench build demo dist .hypothesis .mypy_cache .pytest_cache .ruff_cache */.ruff_cache

$(PIP_STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and \
	    "SeeWhy needs Python 3.10 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; give PYTHON=...")'
	@command -v "$${CXX:-c++}" >/dev/null || { echo 'SeeWhy needs a C++17 compiler: install one, or set CXX' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade 'pip>=25.3'
	@touch $@

$(SMALL): $(PIP_STAMP) $(SOURCES)
	@echo 'Installing SeeWhy and PyTorch into $(VENV); the first time takes some minutes.'
	$(INSTALL) --config-settings=cmake.define.SEEWHY_WERROR=$(SEEWHY_WERROR) '.[demo]'
	@rm -f $(VENV)/.demo-* $(VENV)/.dev-*
	@touch $@

$(DEV): $(PIP_STAMP) $(SOURCES)
	@echo 'Installing SeeWhy, PyTorch and the test tools into $(VENV); the first time takes some minutes.'
	$(INSTALL) --config-settings=cmake.define.SEEWHY_WERROR=$(SEEWHY_WERROR) '.[demo,timm,dev]'
	@rm -f $(VENV)/.demo-* $(VENV)/.dev-*
	@touch $@
