# Every target sets up what it needs: python3 >= 3.11 with venv, and make, are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo docs test test-fast explore fuzz failure-table check format bench bench-durability bench-outage bench-faults bench-pause bench-notify bench-planner bench-money bench-redis-full bench-months bench-soak bench-recount bench-limits bench-footprint bench-idle bench-peers bench-latency bench-start bench-memory bench-streams bench-door bench-enqueue bench-openai-faults bench-openai-kills bench-openai-batch chaos lock clean bench-web-strangers bench-telemetry bench-pages bench-objectives bench-batch

help: ## What there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(READY): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "failover-worker needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Fix: make PYTHON=python3.12"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

install: $(READY) ## The commands, in .venv/bin

demo: $(READY) ## A batch through an outage of the hot provider, on this machine alone
	@$(BIN)/failover demo

docs: $(READY) .venv-docs/.ready ## The documentation site, in .site/html: every link is checked, and its search is tried
	$(BIN)/python -m tests.support.site .site/pages
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet --config-file docs/site/mkdocs.yml
	$(BIN)/python -m tests.support.site_search .site/html

.venv-docs/.ready: docs/site/requirements.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

test: $(READY) ## All tests: a real Valkey, real processes, real HTTP
	$(BIN)/python -m pytest -n 3 --dist worksteal

test-fast: $(READY) ## The quick tests that need no server
	$(BIN)/python -m pytest -n 2 -m "not server and not slow"

explore: $(READY) ## The state machine through 500 orders of steps that no run has tried before
	EXPLORE=500 $(BIN)/python -m pytest -q tests/test_state_machine.py

fuzz: $(READY) ## 20,000 answers that nobody has seen yet
	FUZZ=20000 $(BIN)/python -m pytest -q -n 2 --timeout 3000 tests/test_fuzz_answers.py

failure-table: $(READY) ## The table of docs/failures.md, from the catalog
	$(BIN)/python -m tests.support.failure_table

check: $(READY) ## Lint, types, the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY) ## Throughput and CPU per job, next to stock `rq worker`
	$(BIN)/python -m bench.throughput

chaos: $(READY) ## 3,000 jobs under kills of workers and of Redis: nothing lost, nothing doubled
	$(BIN)/python -m bench.chaos

bench-durability: $(READY) ## Recovery time, dead letters by the hundred thousand, a queue of a million
	$(BIN)/python -m bench.durability

bench-faults: $(READY) ## Sixteen faults of providers, and the calls that each costs
	$(BIN)/python -m bench.faults

bench-openai-faults: $(READY) ## The sixteen faults through /v1, with OpenAI's SDK, streaming whole and live
	$(BIN)/python -m bench.openai.faults

bench-openai-kills: $(READY) ## Worker and web process killed while 150 clients of OpenAI's SDK wait and stream
	$(BIN)/python -m bench.openai.kills

bench-openai-batch: $(READY) ## A batch of 2,000 lines by OpenAI's SDK: an outage, and both processes killed
	$(BIN)/python -m bench.openai.batch

bench-pause: $(READY) ## Fifty workers, and one POST to the budget's webhook: nothing starts after it
	$(BIN)/python -m bench.pause

bench-notify: $(READY) ## What people are told: 10,000 dead letters, Slack away, an outage
	$(BIN)/python -m bench.notify

bench-planner: $(READY) ## CPU a job of choosing routes and telling of it
	$(BIN)/python -m bench.planner

bench-money: $(READY) ## Caps near their end, a route's rate, turns between tenants, a day's dollars, kills
	$(BIN)/python -m bench.money

bench-limits: $(READY) ## A slow link, 512 MB, a job that kills its worker, few file descriptors
	$(BIN)/python -m bench.limits

bench-footprint: $(READY) ## Bytes of Redis that a finished job keeps, by key
	$(BIN)/python -m bench.footprint

bench-months: $(READY) ## A simulated year: Redis's memory stays level, the sums exact, reports quick
	$(BIN)/python -m bench.longrun.months

bench-soak: $(READY) ## Half an hour at 50 jobs/s: memory of worker and Redis stay level, nothing is lost
	$(BIN)/python -m bench.longrun.soak

bench-recount: $(READY) ## The sums of five million ledger rows are lost while 500 jobs run under caps
	$(BIN)/python -m bench.longrun.recount

bench-objectives: $(READY) ## Five weeks with a known truth: every indicator equals it, every alarm comes in time, none else
	$(BIN)/python -m bench.longrun.objectives

bench-idle: $(READY) ## Round trips to Redis and CPU, a second, of a worker without jobs
	$(BIN)/python -m bench.idle

bench-redis-full: $(READY) ## 2,000 jobs on a Redis that fills up: new ones are refused, all accepted ones end
	$(BIN)/python -m bench.redis_full

bench-start: $(READY) ## Seconds until a command answers, and until a worker has its first job
	$(BIN)/python -m bench.worker.start

bench-batch: $(READY) ## A batch file of 50,000 lines beside the worker's own rate; 300 MB in 60 lines
	$(BIN)/python -m bench.worker.batch_run

bench-memory: $(READY) ## Memory of a worker with 2,000 jobs in flight, beside a bare loop
	$(BIN)/python -m bench.worker.memory

bench-streams: $(READY) ## CPU of streamed answers of 130 chunks, beside a bare loop that reads them
	$(BIN)/python -m bench.peers.compare --profile streams

bench-latency: $(READY) ## Milliseconds from enqueue to the provider of an idle worker, and from its answer to the result
	$(BIN)/python -m bench.latency

bench-enqueue: $(READY) ## Jobs a second that a producer hands in, beside rq in the same rounds
	$(BIN)/python -m bench.peers.enqueue

bench-peers: $(READY) ## CPU a job, jobs/s and Redis beside taskiq, saq, arq, dramatiq, celery, rq, BullMQ, and a bare loop
	$(BIN)/python -m bench.peers.compare

bench-door: $(READY) ## What /v1/chat/completions adds to a provider: milliseconds, requests/s, CPU, memory, beside LiteLLM's proxy
	$(BIN)/python -m bench.door.compare

bench-pages: $(READY) ## The web page with 100,000 jobs; 200 viewers; a worker's CPU a job beside them
	$(BIN)/python -m bench.pages.load
	$(BIN)/python -m bench.pages.worker

bench-telemetry: $(READY) ## CPU a job of traces and metrics, their way to a collector included
	$(BIN)/python -m bench.telemetry.cost

bench-outage: $(READY) ## A 90-minute outage of every provider, 300 times as fast
	$(BIN)/python -m bench.outage

bench-web-strangers: $(READY) ## 1,500 half-sent requests: /healthz answers within a second
	$(BIN)/python -m bench.web_strangers

lock: ## Compile the hashed requirements anew from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -q -o requirements.txt
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -q -c requirements.txt -o requirements-dev.txt
	uv pip compile docs/site/requirements.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -q -o docs/site/requirements.txt
	for each in requirements requirements-arq requirements-litellm; do uv pip compile bench/peers/$$each.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header -q -o bench/peers/$$each.txt; done

clean: ## Remove the environment and the local data
	rm -rf $(VENV) .venv-docs .site .failover
