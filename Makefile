# make demo   a campaign of each kind, and its audit           make test   everything, on real servers
# make check  style, types, imports, names, alerts                 make lock   renew the locked dependencies
# make bench  a gateway on one core beside its peers, and what the rest costs; wants the machine to itself
# make simulate   SEEDS=2000 FIRST=1: so many made-up lives, on all cores; a seed that fails says how to replay it
# make properties   5,000 random lives of campaigns, in Redis and in the model side by side: half an hour
# make load SCENARIO=flash-sale USERS=200: shoppers, by Locust, against a stack of its own, or HOST=http://…; a minute
# make faults   what may break breaks under load, and the clients' own log judges what became of it: one to two hours

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check style types imports names alerts bench properties simulate load faults lock clean

demo: $(VENV)/run
	$(BIN)/doorbuster demo

# PROCESSES=2: side by side, each with servers of its own. A file's tests stay together. What waits for something
# may miss it, where there are no more than two cores.
PROCESSES ?= 1
test: $(VENV)/dev
	scripts/install-servers
	$(BIN)/python -m pytest $(if $(filter-out 1,$(PROCESSES)),--numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder)

bench: $(VENV)/dev
	scripts/install-servers
	scripts/install-bench
	$(BIN)/python -m loadtests.bench

properties: $(VENV)/dev
	scripts/install-servers
	DOORBUSTER_PROPERTY_SEQUENCES=$${DOORBUSTER_PROPERTY_SEQUENCES:-5000} $(BIN)/python -m pytest tests/properties

simulate: $(VENV)/dev
	$(BIN)/python -m tests.simulation --seeds $${SEEDS:-2000} --first $${FIRST:-1}

# A shell may have a HOST or USERS of its own: what is meant is said to make.
said = $(if $(filter command line,$(origin $(1))),$(2) $($(1)))
load: $(VENV)/dev
	$(BIN)/python -m loadtests $(SCENARIO) $(call said,HOST,--host) $(call said,USERS,--users) $(OPTIONS)

faults: $(VENV)/dev
	scripts/install-servers
	$(BIN)/python -m loadtests.faults

check: style types imports names alerts

style: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy

imports: $(VENV)/dev
	$(BIN)/lint-imports

names: $(VENV)/dev
	$(BIN)/python -m pytest -q tests/names

alerts: $(VENV)/dev
	command -v promtool >/dev/null || scripts/install-servers
	promtool check config monitoring/prometheus/prometheus.yml
	promtool test rules tests/monitoring/alerts/*.test.yml

# What running takes, and what developing takes: two stamps, so that the demo need not wait for the latter.
$(VENV)/run: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/dev: $(VENV)/run requirements-dev.lock
	$(BIN)/pip install --quiet --require-hashes -r requirements-dev.lock
	touch $@

# Locks carry hashes and no registry addresses, for every Python from 3.11.
lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header --upgrade -o requirements-dev.lock
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-annotate --no-header -c requirements-dev.lock -o requirements.lock

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
