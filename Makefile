# Two commands matter: `make book` and `make test`. Both create .venv from requirements.lock.txt when it is missing or
# older than the lock. Needs Python 3.11 or later with venv; choose another interpreter with PYTHON=python3.12.
PYTHON    ?= python3
PROFILE   ?= laptop
RECOMPUTE ?=
VERIFY    ?= 1
ARGS      ?=

VENV  := .venv
STAMP := $(VENV)/installed
CROSS := $(VENV)/crosschecks
PY    := $(VENV)/bin/python
PIP   := $(PY) -m pip --disable-pip-version-check -qq  # errors are still shown

.DEFAULT_GOAL := help
.PHONY: help install book pdf test lint clean
.NOTPARALLEL:

help:
	@echo "make book [PROFILE=smoke|laptop|paper] [RECOMPUTE=1]   build the book into _build/html (default: laptop)"
	@echo "make book RECOMPUTE=stale                              the same; replace results made with other weights or settings"
	@echo "make book VERIFY=0                                     the same without computing a sample of the records again"
	@echo "make book pdf                                          build the book, then print it into _build/pixeldefend.pdf"
	@echo "make test [ARGS='-k name']                             run the tests"
	@echo "make lint                                              check style with ruff"
	@echo "make install                                           only create or refresh .venv"
	@echo "make clean                                             remove what builds made (keeps .venv, data and records)"

install: $(STAMP)

# A lock newer than the stamp reinstalls; so does a changed pyproject.toml, because it names the console command.
$(STAMP): requirements.lock.txt pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit('Python 3.11 or later is needed, this is ' + sys.version.split()[0] \
	    + ': run make PYTHON=python3.11 ...' if sys.version_info < (3, 11) else 0)"
	@echo "installing the pinned packages into $(VENV) (some minutes the first time)"
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)  # also one that was left half-made
	@$(PIP) install -r requirements.lock.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

# What tests/test_crosscheck.py compares with. The lock stays as it is. Without these packages those tests are skipped,
# so no failure here is one of `make test`; it gives up soon, to be tried again the next time.
PINS = $(PY) -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb')); print(*p$(1))"
$(CROSS): $(STAMP)
	@$(PIP) install --retries 1 --timeout 10 -c requirements.lock.txt \
	    $$($(call PINS,['project']['optional-dependencies']['crosscheck'])) >$@.log 2>&1 \
	&& $(PIP) install --retries 1 --timeout 10 --no-deps \
	    $$($(call PINS,['tool']['pixeldefend']['crosscheck-without-dependencies'])) >>$@.log 2>&1 \
	&& touch $@ || echo "not installed (see $@.log): foolbox or torchattacks; some of tests/test_crosscheck.py is skipped"

book: $(STAMP)
	@$(PY) -m pixeldefend.book --profile $(PROFILE) $(if $(filter-out 0 no false,$(RECOMPUTE)),--recompute $(filter stale,$(RECOMPUTE))) \
	    $(if $(filter 0 no false,$(VERIFY)),--no-verify)

# Of the pages as they were last built: to build them again would take from them what that build had verified.
pdf: $(STAMP)
	@$(PY) -m pixeldefend.pdf

test: $(STAMP) $(CROSS)
	@$(PY) -m pytest $(ARGS)

lint: $(STAMP)
	@$(PY) -m ruff check .

clean:
	rm -rf _build book/notebooks book/execution.md book/models.md book/models .pytest_cache .ruff_cache *.egg-info
	find pixeldefend tests notebooks book -name __pycache__ -type d -prune -exec rm -rf {} +
