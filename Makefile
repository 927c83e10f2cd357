# What one does with Stockyard, a line each: make help. The work is in scripts/.

SHELL := bash
# Which load test.
SCENARIO ?= quick
# Queries are checked against .sqlx, whatever DATABASE_URL says.
export SQLX_OFFLINE ?= true
# How the service is built for the trial stack: quick (to build) or release (quick to run); else as it was last.
export PROFILE
# What the image is called, and what it is made from.
export IMAGE BUILD_IMAGE RUN_IMAGE SOURCE

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1@\2/p' Makefile | while IFS=@ read -r target text; do printf '%-16s %s\n' "$$target" "$$text"; done

start: ## start everything on this machine and wait until it answers (PROFILE=release for full speed)
	@scripts/stack.sh start

stop: ## stop everything; the data stays
	@scripts/stack.sh stop

status: ## what runs, where, and whether it answers
	@scripts/stack.sh status

logs: ## the service's log, or NAME=kafka, postgres, redis, prometheus, alertmanager, grafana, build
	@scripts/stack.sh logs $(NAME)

produce: ## send movements to the running stack (ARGS="--count 1000000 --duplicates 10", ARGS=--help)
	@scripts/stack.sh run produce $(ARGS)

seed-demo: ## load a small catalogue with stock into the running stack, as the examples use it
	@scripts/stack.sh run seed-demo

verify: ## prove that ledger, levels and movements agree (ARGS="--oracle FILE")
	@scripts/stack.sh run verify $(ARGS)

rebuild: ## make levels and movements anew from the ledger, while it serves (ARGS=--dry-run: compare only)
	@scripts/stack.sh run rebuild $(ARGS)

dlq: ## look at dead letters and bring them back (ARGS=list, ARGS="show ORIGIN", ARGS="replay --all --dry-run")
	@scripts/stack.sh run dlq $(ARGS)

test: ## all tests, on servers of their own (ARGS="name of a test")
	@scripts/with-servers.sh cargo test --locked $(ARGS)

test-slow: ## the long forms of the tests, and all of them on the oldest PostgreSQL that is supported
	@STOCKYARD_TEST_LONG=1 scripts/with-servers.sh cargo test --locked $(ARGS)
	@STOCKYARD_POSTGRES_VERSION=15.15.0 scripts/with-servers.sh cargo test --locked $(ARGS)

bench: ## what it reaches, beside the limit of the machine and a peer (ARGS="backlog --repetitions 5", ARGS=--help)
	@scripts/bench.sh $(ARGS)

# The generator should not be the limit.
load: PROFILE = release
load: ## a load test against the running stack (SCENARIO=standard, stress, race, …, all, interactive; ARGS=--help)
	@scripts/run_load_tests.sh $(SCENARIO) $(ARGS)

check: ## what CI runs: format, lints, generated files, licences, list of parts, Compose, and all tests
	@scripts/with-servers.sh scripts/check.sh

api-check: ## try the API against its own document (ARGS="--seed=1 --max-examples=200"; needs Python 3 with venv)
	@scripts/with-servers.sh scripts/api-check.sh $(ARGS)

image: ## the container image, as stockyard:<version> (IMAGE=, BUILD_IMAGE=, RUN_IMAGE=, SOURCE=; needs a Docker engine)
	@scripts/image.sh build $(ARGS)

image-check: ## run the image as production should, and try what it promises (needs a Docker engine, on Linux)
	@scripts/with-servers.sh scripts/image.sh check

backup-check: ## back up and restore while messages come, by the commands of docs/operations.md (needs pg_dump, or Python 3 with venv)
	@scripts/with-servers.sh scripts/backup-check.sh

sbom: ## the list of what the program is made of, with licences and hashes: stockyard.cdx.json (CycloneDX)
	@scripts/sbom.sh

deploy-check: ## what runs in Kubernetes against its schemas, and asyncapi.yaml against itself (needs Python 3 with venv)
	@scripts/deploy-check.sh

upgrade-check: ## replace an older version by this one under load, process by process (OLD=a revision of this repository)
	@scripts/upgrade-check.sh $(OLD)

fuzz: ## look for messages that the decoder misreads, for a minute (ARGS="-max_total_time=900"; needs a C++ compiler)
	@scripts/fuzz.sh $(ARGS)

fmt: ## format the code
	@cargo fmt
	@cargo fmt --manifest-path fuzz/Cargo.toml

prepare: ## write .sqlx, after a changed query or migration
	@scripts/with-servers.sh scripts/sqlx-prepare.sh

openapi: ## write openapi.json, after a changed route
	@cargo run --locked --quiet -- openapi >openapi.json.new && mv openapi.json.new openapi.json

.PHONY: help start stop status logs produce seed-demo verify rebuild dlq test test-slow bench load check api-check deploy-check upgrade-check fuzz fmt prepare openapi image image-check sbom backup-check
