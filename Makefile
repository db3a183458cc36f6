PYTHON ?= python3
VENV ?= .venv
# Installed first, so that the ranges in pyproject.toml do not choose another build of PyTorch. After a change: make clean.
TORCH ?= torch==2.13.0
# Passed on to pytest: make test TESTFLAGS="-k deploy"
TESTFLAGS ?=
# Photographs to train on: make weights PHOTOS=folder
PHOTOS ?= photos
# Processes that run the tests, each with one thread
JOBS ?= 2

DEMO_EXTRAS := train,export,ort
# cluster: 80 MB, for tests on two nodes of this machine
# trt-rtx: 96 MB of wheels (x86_64 alone), for tests that build real engines without a GPU
TEST_EXTRAS := $(DEMO_EXTRAS),video,cluster,trt-rtx,ui,browser,dev
DEMO_STAMP := $(VENV)/.darsr-demo
TEST_STAMP := $(VENV)/.darsr-test

.DEFAULT_GOAL := help
.NOTPARALLEL: # both stamps install into one environment
.PHONY: help demo test lint format release clean weights

help:
	@echo 'make demo    install into $(VENV), then run darsr demo'
	@echo 'make test    install into $(VENV) with the developer tools, then run the tests (TESTFLAGS="-k name -m '"'"'not slow'"'"'")'
	@echo 'make lint    ruff check, format check and mypy'
	@echo 'make format  let ruff repair what it can'
	@echo 'make release build dist/*.whl and dist/*.tar.gz and check what they say of themselves'
	@echo 'make weights PHOTOS=folder  train everything that ships, into weights/; can be stopped and run again (days)'
	@echo 'make clean   remove $(VENV) and everything that was built'
	@echo 'Variables: PYTHON=$(PYTHON) VENV=$(VENV) TORCH=$(TORCH) JOBS=$(JOBS)'

# $(1): extras. The stamp is written only when all went well, so an interrupted install is done again.
define install
	test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install '$(TORCH)'
	$(VENV)/bin/python -m pip install -e '.[$(1)]'
	touch $@
endef

$(DEMO_STAMP): pyproject.toml
	$(call install,$(DEMO_EXTRAS))

$(TEST_STAMP): pyproject.toml
	$(call install,$(TEST_EXTRAS))

demo: $(DEMO_STAMP)
	$(VENV)/bin/darsr demo

test: $(TEST_STAMP)
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(JOBS) --dist worksteal $(TESTFLAGS)

lint: $(TEST_STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(TEST_STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

release: $(TEST_STAMP)
	rm -rf build dist
	$(VENV)/bin/python -m build --no-isolation
	$(VENV)/bin/python -m twine check --strict dist/*

weights: $(TEST_STAMP)
	$(VENV)/bin/python -m darsr_train.training.recipe '$(PHOTOS)' weights

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
