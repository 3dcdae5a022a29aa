# Settings, all optional: N8N_DIR (the n8n project directory; default: this checkout), FILE, SET and YES for restores,
# DRY_RUN for cleanup, BENCH_... for bench, CELL for matrix, FAULT_... for faults. They reach the scripts in scripts/make through the
# environment and unexpanded, so that spaces, quotes and dollar signs in a path are safe.

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

settings := N8N_DIR FILE SET YES DRY_RUN BENCH_MB BENCH_DATA BENCH_ROUNDS BENCH_GROWTH BENCH_SQLITE BENCH_WRITE CELL MATRIX_MIRROR FAULT_ROUNDS FAULT_COMPRESSOR FAULT_PASSPHRASE FAULT_THREADS
override N8N_DIR := $(value N8N_DIR)
override FILE := $(value FILE)
override SET := $(value SET)
override YES := $(value YES)
override DRY_RUN := $(value DRY_RUN)
export N8N_DIR FILE SET YES DRY_RUN

# A mistyped setting (DRYRUN=1) must not delete anything.
given := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
unknown := $(filter-out $(settings) -%,$(given))
$(if $(unknown),$(error unknown setting $(unknown); known are $(settings)))

.PHONY: help build install uninstall install-cron uninstall-cron install-timer uninstall-timer deb dist \
  backup backup-postgres backup-sqlite backup-redis backup-n8n cleanup restore restore-all \
  list status verify doctor \
  check smoke test test-all test-n8n matrix faults demo bench clean

help: ## Show this list
	@printf 'n8n-backup: make TARGET [N8N_DIR=/path/to/n8n]\n\n'
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | while IFS=$$'\t' read -r name text; do \
	  printf '  %-16s %s\n' "$$name" "$$text"; \
	done

build: ## Build the release binary as bin/n8n-backup
	@scripts/make/build.sh

# The other targets rebuild the binary only when a source is newer, so that a restore or
# `sudo make install` needs no cargo.
bin/n8n-backup: Cargo.toml $(wildcard Cargo.lock) $(shell find src -type f) scripts/backup-all.sh scripts/lib/shim.sh
	@scripts/make/build.sh

install: bin/n8n-backup ## Build, and install into N8N_DIR; replaced scripts are kept as .orig
	@scripts/make/install.sh

uninstall: bin/n8n-backup ## Remove from N8N_DIR and restore the original scripts
	@scripts/make/uninstall.sh

install-cron: ## Add a nightly backup of N8N_DIR to your crontab
	@scripts/make/cron.sh add

uninstall-cron: ## Remove that line from your crontab
	@scripts/make/cron.sh remove

install-timer: ## Add a nightly backup of N8N_DIR as a systemd timer
	@scripts/make/timer.sh add

uninstall-timer: ## Remove that timer
	@scripts/make/timer.sh remove

deb: bin/n8n-backup ## Build a Debian package in target/dist
	@scripts/make/deb.sh

dist: bin/n8n-backup ## Build the Debian package, an archive for other systems, and their checksums in target/dist
	@scripts/make/dist.sh

backup: bin/n8n-backup ## Back up everything: database, Redis, n8n volume, .env
	@scripts/make/run.sh backup-all

backup-postgres: bin/n8n-backup ## Back up the PostgreSQL database
	@scripts/make/run.sh backup-postgres

backup-sqlite: bin/n8n-backup ## Back up the SQLite database
	@scripts/make/run.sh backup-sqlite

backup-redis: bin/n8n-backup ## Back up the Redis data
	@scripts/make/run.sh backup-redis

backup-n8n: bin/n8n-backup ## Back up the n8n data volume
	@scripts/make/run.sh backup-n8n

cleanup: bin/n8n-backup ## Delete old backups (DRY_RUN=1 only lists them)
	@scripts/make/run.sh cleanup-backups

restore: bin/n8n-backup ## Restore from the backup FILE=... (YES=1 skips the prompt)
	@scripts/make/run.sh restore

restore-all: bin/n8n-backup ## Restore everything from recovery point SET=... or the latest
	@scripts/make/run.sh restore-all

list: bin/n8n-backup ## List the recovery points
	@scripts/make/run.sh list

status: bin/n8n-backup ## Report the age, integrity and test results of the backups
	@scripts/make/run.sh status

verify: bin/n8n-backup ## Verify the files of recovery point SET=... or the latest
	@scripts/make/run.sh verify

doctor: bin/n8n-backup ## Check everything that a backup needs
	@scripts/make/run.sh doctor

check: ## Check syntax, style and lints
	@scripts/make/check.sh

smoke: bin/n8n-backup ## Run the crontab line on a scratch stack
	@scripts/make/smoke.sh

test: bin/n8n-backup ## Run the main tests on scratch stacks
	@scripts/make/test.sh

test-all: bin/n8n-backup ## Run every test
	@scripts/make/test.sh all

test-n8n: bin/n8n-backup ## Run the tests with a real n8n; its image takes minutes to build, once
	@scripts/make/test-n8n.sh

matrix: bin/n8n-backup ## Try other servers, engines and hosts; writes docs/compatibility.md (CELL=quick: a part, CELL=NAME: one)
	@scripts/make/matrix.sh

faults: bin/n8n-backup ## Run the full fault suite (FAULT_ROUNDS, FAULT_COMPRESSOR, FAULT_PASSPHRASE, FAULT_THREADS)
	@scripts/make/faults.sh

demo: bin/n8n-backup ## Back up, destroy and restore a scratch stack
	@scripts/make/demo.sh

bench: bin/n8n-backup ## Compare with plain shell pipelines (BENCH_MB, BENCH_DATA, BENCH_ROUNDS, BENCH_GROWTH=1, BENCH_SQLITE=1, BENCH_WRITE=1)
	@scripts/make/bench.sh

clean: ## Remove build output
	@rm -rf bin target
