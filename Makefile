# A thin front: every target is a few plain commands, all of which stand in
# README.rst too. `make VENV=... PYTHON3=...` chooses another environment.

PYTHON3 = python3
VENV = .venv
PORT = 6543
DEMO = build/demo
ARGS =
# Programs that some tests drive, and Debian's packages that have them; without,
# these tests are skipped. `make test TOOLS=` leaves the system as it is.
TOOLS = chromium:chromium chromedriver:chromium-driver nginx:nginx-light \
        pg_ctlcluster:postgresql redis-server:redis-server

PYTHON = $(VENV)/bin/python
PIP = $(PYTHON) -m pip --disable-pip-version-check --quiet
SETUP = setup.py pyproject.toml aioext/_version.py

.DELETE_ON_ERROR:
.PHONY: help demo test pyramid-tests lint docs bench clean

help:
	@echo 'make demo            generate the starter project and serve it (PORT=$(PORT))'
	@echo 'make test            run the tests (ARGS="-k name" is passed to pytest)'
	@echo 'make pyramid-tests   run the functional tests of Pyramid on aioext'
	@echo 'make lint            check style and formatting'
	@echo 'make docs            build the documentation in build/docs'
	@echo 'make bench           print the benchmarks'
	@echo 'make clean           remove what was built'

demo: $(VENV)/.installed-hello
	@echo 'Serving on http://127.0.0.1:$(PORT) (stop with Ctrl-C)'
	@cd $(DEMO)/hello && exec $(abspath $(VENV))/bin/pserve development.ini http_port=$(PORT)

test: $(VENV)/.installed-test $(VENV)/.installed-uwsgi
	@$(INSTALL_TOOLS)
	$(PYTHON) -m pytest $(ARGS)

pyramid-tests: $(VENV)/.installed-test
	$(PYTHON) tests/pyramid_suite.py $(ARGS)

lint: $(VENV)/.installed-lint
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check

docs: $(VENV)/.installed-docs
	$(PYTHON) -m sphinx -W -n --keep-going -b html docs build/docs

# Only root can install them, where apt-get is; who cannot is told.
define INSTALL_TOOLS
export PATH="$$PATH:/usr/sbin" DEBIAN_FRONTEND=noninteractive; missing=; \
for tool in $(TOOLS); do \
  command -v $${tool%:*} >/dev/null || missing="$$missing $${tool#*:}"; \
done; \
[ -z "$$missing" ] || \
{ [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq $$missing; } \
  >/dev/null || \
echo "Some tests need what is missing here: apt-get install$$missing" >&2
endef

# Without Python's header files, or a compiler, its tests are skipped.
define BUILD_UWSGI
$(VENV)/bin/uwsgi --help 2>/dev/null | grep -q -e --asyncio || { \
$(PYTHON) -c $(HAS_HEADERS) || [ -z '$(TOOLS)' ] || [ "$$(id -u)" != 0 ] || { \
  export DEBIAN_FRONTEND=noninteractive; apt-get update -qq && \
  apt-get install -y -qq build-essential python3-dev; } >/dev/null; \
$(PIP) install wheel && \
CFLAGS="-I$$($(PYTHON) -c $(GREENLET_HEADERS))" UWSGI_PROFILE=asyncio \
$(PIP) install --no-cache-dir --no-build-isolation --force-reinstall --no-deps \
  'uwsgi >= 2.0.31' || \
echo 'uWSGI could not be built: apt-get install build-essential python3-dev' >&2; }
endef
HAS_HEADERS = 'import os.path, sys, sysconfig; \
  sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))'
GREENLET_HEADERS = 'import sys; \
  print("%s/include/site/python%d.%d" % (sys.prefix, *sys.version_info[:2]))'

# wrk is the client that loads the servers; it is not a Python package.
bench: $(VENV)/.installed-bench
	@command -v wrk >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -y -qq wrk; } || \
	  { echo 'wrk is missing: apt-get install wrk' >&2; exit 1; }
	$(PYTHON) -m benchmarks $(ARGS)

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .coverage .coverage.* htmlcov
	find aioext benchmarks scaffolds tests -name __pycache__ -prune -exec rm -rf {} + \
	  2>/dev/null || true
	rm -f $(VENV)/.installed-*

$(PYTHON):
	@$(PYTHON3) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo '$(PYTHON3) is not Python 3.11 or later: make PYTHON3=python3.11 ...' >&2; exit 1; }
	@$(PYTHON3) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo '$(PYTHON3) cannot make environments: apt-get install python3-venv' >&2; exit 1; }
	$(PYTHON3) -m venv $(VENV)

# What is installed already is installed again only if the metadata changed.
$(VENV)/.installed-demo: extras = gunicorn,mako,scaffold
$(VENV)/.installed-test: extras = gunicorn,mako,scaffold,test
$(VENV)/.installed-lint: extras = lint
$(VENV)/.installed-docs: extras = gunicorn,mako,scaffold,testing,docs
$(VENV)/.installed-bench: extras = gunicorn,mako,benchmarks
$(VENV)/.installed-demo $(VENV)/.installed-test $(VENV)/.installed-lint \
$(VENV)/.installed-docs $(VENV)/.installed-bench: $(SETUP) | $(PYTHON)
	$(PIP) install -e '.[$(extras)]'
	@touch $@

# It has its asyncio mode only if it is built so, with the greenlet of the environment.
$(VENV)/.installed-uwsgi: $(VENV)/.installed-test
	@$(BUILD_UWSGI)
	@touch $@

$(DEMO)/.generated: $(shell find scaffolds -type f ! -path '*/__pycache__/*') \
  | $(VENV)/.installed-demo
	@rm -rf $(DEMO)/hello
	@mkdir -p $(DEMO)
	cd $(DEMO) && $(abspath $(VENV))/bin/pcreate -s aio_starter hello >/dev/null
	@touch $@

$(VENV)/.installed-hello: $(DEMO)/.generated $(VENV)/.installed-demo
	$(PIP) install -e $(DEMO)/hello
	@touch $@
