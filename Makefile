# Commands for a fresh clone, such as `make demo` and `make test`. They need Python 3.10+ (with venv) and a C++17
# compiler. PYTHON=python3.12 selects another interpreter; SEEWHY_WERROR=ON turns compiler warnings into errors, as in CI.

PYTHON ?= python3
SEEWHY_WERROR ?= OFF
# Results of `make bench` and `make bench-aims`; results of another kind of machine need another file.
RESULTS ?= benchmarks/results/peers.json

VENV := .venv
PIP := $(VENV)/bin/python -m pip
INSTALL := $(PIP) install --quiet --constraint constraints.txt --build-constraint constraints.txt

# Files that an installation depends on.
SOURCES := pyproject.toml constraints.txt CMakeLists.txt LICENSE NOTICE \
	$(sort $(shell find csrc engine export -type f -not -path '*/__pycache__/*' -not -path '*/.*'))

# Stamp files. Their names depend on the list of sources, so that a removed file counts as a change. The installation for
# the tests includes everything that `demo` needs, so it serves both once it exists.
PIP_STAMP := $(VENV)/.pip
KEY := $(shell echo $(SEEWHY_WERROR) $(SOURCES) | cksum | cut -d ' ' -f 1)
DEV := $(VENV)/.dev-$(KEY)
SMALL := $(VENV)/.demo-$(KEY)
DEMO := $(if $(wildcard $(VENV)/.dev-*),$(DEV),$(SMALL))

# Run test modules in parallel with one thread each: most of their time goes into PyTorch's traces, which use only one
# thread. Each process takes up to 3 GiB.
PYTEST := OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

.DELETE_ON_ERROR:
.PHONY: help demo test test-slow test-all zoo comparison bench bench-aims bench-quick lint wheel clean

help:
	@echo 'make demo       export a network with real weights and explain five images; results in demo/'
	@echo 'make test       run the fast tests'
	@echo 'make test-slow  run the slow tests: large networks, sanitizers, packages'
	@echo 'make test-all   run both'
	@echo 'make zoo        export all networks of docs/reference/models.md and write that page; takes hours'
	@echo 'make comparison compare methods by numbers and write docs/comparison.md; takes about an hour'
	@echo 'make bench      compare SeeWhy with other tools and write docs/performance/benchmarks.md; takes over an hour'
	@echo 'make bench-aims   measure only what the aims on that page need; takes about 25 minutes'
	@echo 'make bench-quick  print a few ratios, and compare them with stored ones of the same CPU flags if there are any'
	@echo 'make lint       run ruff, mypy, import-linter, codespell and pydoclint'
	@echo 'make wheel      build a wheel and an sdist into dist/'
	@echo 'make clean      remove everything that these commands created, $(VENV) included'

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

comparison: $(DEV)
	$(VENV)/bin/python benchmarks/comparison/compare_methods.py

bench: $(DEV)
	$(VENV)/bin/python benchmarks/peers/compare_tools.py --results $(RESULTS)

bench-aims: $(DEV)
	$(VENV)/bin/python benchmarks/peers/compare_tools.py --results $(RESULTS) --aims --missing --keep-earlier

bench-quick: $(DEV)
	$(VENV)/bin/python benchmarks/peers/bench_quick.py

lint: $(DEV)
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	PYTHONPATH=engine:export $(VENV)/bin/lint-imports --no-cache
	$(VENV)/bin/codespell
	$(VENV)/bin/pydoclint engine/seewhy export/seewhy_export

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
	$(INSTALL) --config-settings=cmake.define.SEEWHY_WERROR=$(SEEWHY_WERROR) '.[demo,timm,transformers,dev]'
	@# Only tests import Quantus. Its dependencies are there already, but for a second build of OpenCV.
	$(INSTALL) --no-deps quantus
	@rm -f $(VENV)/.demo-* $(VENV)/.dev-*
	@touch $@
