# The two commands of the README, and what a contributor needs. Everything goes into .venv in this folder.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# How many tests run side by side: one more than the two cores of CI, since each waits for nodes and browsers a fifth of its time.
# All workers share the search nodes (up to six of about 0.5 GB); a worker takes up to 2 GB.
WORKERS ?= 3
PIP := $(BIN)/python -m pip --disable-pip-version-check
# The unit tests alone need neither PyTorch nor Ray.
UNIT_VENV := .venv-unit

.DEFAULT_GOAL := help
.PHONY: help demo test nightly nightly-tests unit coverage bench compatibility browser docs site dist dist-check image-check lint format clean

help:
	@echo "make demo    install into .venv, start a search node, take in the bundled photos, search them"
	@echo "make test    install what the tests need (torch among it; as root on Debian Chromium too) and run what a change has to pass"
	@echo "make nightly  the tests that make test leaves out: other engines, all pages of the docs, lost nodes, and the image check"
	@echo "make unit    install into .venv-unit (0.6 GB, without torch and Ray) and run the unit tests; make coverage names untested lines, too"
	@echo "make bench   run all benchmarks in a short form and write docs/benchmarks.md (BENCH=long: hours; ONLY=\"ingest sink\": some)"
	@echo "make compatibility  run the commands on every version of the engines, write docs/reference/compatibility.md (ONLY=\"2.19.1 8.17.0\": some)"
	@echo "make docs    build the documentation site into build/site; a warning is an error"
	@echo "make dist    wheel, sdist and bill of materials in dist/, checked; make dist-check tries the wheel with the lowest and newest packages"
	@echo "make image-check  build the image with buildah and try it, as root on Debian or Ubuntu (IMAGE_ARGS=--required: never skip)"
	@echo "make lint    ruff and mypy; biome and tsc for the page's JavaScript, which take Node.js 20 or newer with npm"
	@echo "make format  let ruff and biome put the code in order"
	@echo "make clean   remove .venv, .venv-unit, node_modules and caches (the node's data in STAIR_ES_HOME stays)"

demo: $(VENV)/.installed
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh

# BLAS threads spin while they wait, and would take the cores that the tests of the other worker need.
test nightly-tests unit coverage: export OMP_NUM_THREADS := 1
test nightly-tests unit coverage: export OPENBLAS_NUM_THREADS := 1
# The installation compiles nothing: what is imported is compiled once, unless the machine forbids it, and then by every process.
test nightly-tests unit coverage: export PYTHONDONTWRITEBYTECODE :=
# Every package is installed here, so a test that lacks one fails. `make unit` skips it.
test nightly-tests: export STAIR_ES_ALL_TESTS := 1
# In CI a test that fails runs once more. One that then passes depends on the machine: the end of the log has its traceback, fix it.
test nightly-tests: PYTEST_ARGS ?= $(if $(CI),--reruns 1 --max-suite-reruns 10 --rerun-show-tracebacks)
test: $(VENV)/.installed-test browser
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not nightly" $(PYTEST_ARGS)

# What few changes can break: `git grep pytest.mark.nightly` shows the reasons. The image check skips where it can't fetch packages.
nightly: nightly-tests image-check

nightly-tests: $(VENV)/.installed-test browser
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m nightly $(PYTEST_ARGS)

unit: $(UNIT_VENV)/.installed
	$(UNIT_VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile tests/unit $(PYTEST_ARGS)

# 73.3 % on 2026-11-27; the floor is in pyproject.toml. Lines that only a subprocess or PyTorch runs count as missing.
# An option follows --cov, which would take a path for its value.
coverage: $(UNIT_VENV)/.installed
	$(UNIT_VENV)/bin/python -m pytest --cov -n $(WORKERS) --dist loadfile tests/unit $(PYTEST_ARGS)

# The packages that we compare with, installed with --no-deps, because their pins would downgrade Ray's packages.
PEERS := ray-elasticsearch==1.1.4 'elasticsearch8<9' 'elastic-transport<9' resvg-py==0.5.0
BENCH ?= short

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/bench.py --form $(BENCH) $(if $(ONLY),--only $(ONLY))

# Nodes of ten versions, one after the other: 8 minutes on two quiet cores, and 1 GB the first time. Elasticsearch 8 and 9 take a full JDK.
compatibility: $(VENV)/.installed-test
	$(BIN)/python scripts/check_versions.py $(if $(ONLY),--only $(ONLY))

# The tests of the page use Debian's Chromium. It is installed only as root; otherwise a message names it.
browser:
	@if { command -v chromium-headless-shell || command -v chromium; } >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "installing Chromium for the tests of the page"; \
		(apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium-headless-shell \
			fonts-dejavu-core) >/dev/null; \
	else echo "the tests of the page need Chromium: apt install chromium-headless-shell" >&2; fi

docs: $(VENV)/.installed-test
	$(BIN)/python -m sphinx -E -W --keep-going -q -b html docs build/site
	@echo "open build/site/index.html"

# What the workflow docs publishes: the newest release as stable, this tree as latest.
site: export STAIR_ES_DOCS := latest
site: docs
	rm -rf build/pages build/stable
	mkdir -p build/pages
	mv build/site build/pages/latest
	tag=$$(git tag --list 'v*' --sort=-version:refname | head -n 1); first=latest; \
	if [ -n "$$tag" ]; then \
		first=stable; \
		git worktree prune; \
		git worktree add --quiet --detach build/stable "$$tag"; \
		STAIR_ES_DOCS=$$tag $(BIN)/python -m sphinx -E -q -b html build/stable/docs build/pages/stable; \
		git worktree remove --force build/stable; \
	fi; \
	echo "<!doctype html><title>stair-es</title><meta http-equiv=\"refresh\" content=\"0; url=$$first/\">" > build/pages/index.html

# TAG=v1.2.3: check that the version is that of the tag, and write the release notes next to the wheel and the bill of materials.
dist: $(VENV)/.installed-release
	$(BIN)/python scripts/cut_release.py --check $(if $(TAG),--tag $(TAG))
	rm -rf dist
	$(BIN)/python -m build --quiet
	$(BIN)/python -m twine check --strict dist/*
	$(BIN)/python scripts/dist_files.py dist
	$(BIN)/python scripts/dist_sbom.py dist
	$(if $(TAG),$(BIN)/python scripts/cut_release.py --notes > dist/NOTES.md)

# UNIT=1 also runs tests/unit against the wheel; EXTRAS=node,torch tries others than the default ones.
dist-check: $(VENV)/.installed-release
	$(BIN)/python scripts/dist_installs.py dist $(if $(EXTRAS),--extras $(EXTRAS)) $(if $(UNIT),--unit)

# No registry, no daemon. About 4 minutes on two quiet cores the first time; the base is kept.
image-check:
	@$(PYTHON) scripts/check_image.py $(IMAGE_ARGS)

lint: $(VENV)/.installed-test node_modules/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	npm run --silent lint
	$(BIN)/mypy

format: $(VENV)/.installed-test node_modules/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	npm run --silent format

clean:
	rm -rf $(VENV) $(UNIT_VENV) node_modules build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .coverage*

$(VENV)/bin/python $(UNIT_VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "stair-es needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..." >&2; exit 2; }
	@$(PYTHON) -m venv $(@:/bin/python=) || \
		{ rm -rf $(@:/bin/python=); echo "can't make a virtual environment (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 2; }

$(VENV)/.installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV) (about a minute the first time)"
	@$(PIP) install --quiet -e '.[encoder,node,ray,terminal]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-test Makefile
	@$(PIP) install --quiet --no-deps $(PEERS)
	@touch $@

$(VENV)/.installed-release: setup.cfg pyproject.toml | $(VENV)/bin/python
	@$(PIP) install --quiet -e '.[release]'
	@touch $@

$(VENV)/.installed-test: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "installing into $(VENV), with torch (some minutes the first time)"
	@$(PIP) install --quiet --no-compile -e '.[node,ray,torch,dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-release

$(UNIT_VENV)/.installed: setup.cfg pyproject.toml | $(UNIT_VENV)/bin/python
	@echo "installing into $(UNIT_VENV) (about a minute the first time)"
	@$(UNIT_VENV)/bin/python -m pip --disable-pip-version-check install --quiet --no-compile -e '.[unit]'
	@touch $@

# Only what checks the page's JavaScript: the page itself takes no package.
node_modules/.installed: package.json package-lock.json
	@command -v npm >/dev/null || \
		{ echo "make lint needs Node.js 20 or newer with npm (https://nodejs.org)" >&2; exit 2; }
	@npm ci --loglevel=error --no-audit --no-fund
	@touch $@
