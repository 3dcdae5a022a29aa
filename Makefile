# Settings, all optional: N8N_DIR (the n8n project directory, else this checkout), FILE, SET and
# YES for the restores, DRY_RUN for cleanup, BENCH_... for bench. They reach the scripts in scripts/make through the
# environment and unexpanded, so that blanks, quotes and dollar signs in a path are safe.

SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory --no-builtin-rules

settings := N8N_DIR FILE SET YES DRY_RUN BENCH_MB BENCH_DATA BENCH_ROUNDS BENCH_GROWTH BENCH_WRITE FAULT_ROUNDS FAULT_COMPRESSOR FAULT_PASSPHRASE FAULT_THREADS
override N8N_DIR := $(value N8N_DIR)
override FILE := $(value FILE)
override SET := $(value SET)
override YES := $(value YES)
override DRY_RUN := $(value DRY_RUN)
export N8N_DIR FILE SET YES DRY_RUN

# A mistyped setting (DRYRUN=1) must not turn into a deletion.
given := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
unknown := $(filter-out $(settings) -%,$(given))
$(if $(unknown),$(error unknown setting $(unknown); known are $(settings)))

.PHONY: help build install uninstall install-cron uninstall-cron install-timer uninstall-timer deb \
  backup backup-postgres backup-redis backup-n8n cleanup restore restore-all \
  list status verify doctor \
  check smoke test test-all faults demo bench clean

help: ## Show this list
	@printf 'n8n-backup: make TARGET [N8N_DIR=/path/to/n8n]\n\n'
	@sed -n 's/^\([a-z0-9-]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | while IFS=$$'\t' read -r name text; do \
	  printf '  %-16s %s\n' "$$name" "$$text"; \
	done

build: ## Build the release binary as bin/n8n-backup
	@scripts/make/build.sh

# Everything else uses the binary as it is, unless its sources are newer: a restore or
# `sudo make install` then needs no cargo.
bin/n8n-backup: Cargo.toml $(wildcard Cargo.lock) $(shell find src -type f)
	@scripts/make/build.sh

install: bin/n8n-backup ## Build and install into N8N_DIR, keeping what is replaced as .orig
	@scripts/make/install.sh

uninstall: ## Put the original scripts of N8N_DIR back
	@scripts/make/uninstall.sh

install-cron: ## Add the nightly backup of N8N_DIR to your crontab, once
	@scripts/make/cron.sh add

uninstall-cron: ## Take that line out of your crontab again
	@scripts/make/cron.sh remove

install-timer: ## The same by a systemd timer, instead of cron
	@scripts/make/timer.sh add

uninstall-timer: ## Remove that timer again
	@scripts/make/timer.sh remove

deb: bin/n8n-backup ## Build a Debian package in target/
	@scripts/make/deb.sh

backup: bin/n8n-backup ## Back up everything: PostgreSQL, Redis, n8n volume, .env
	@scripts/make/run.sh backup-all

backup-postgres: bin/n8n-backup ## Back up the PostgreSQL database
	@scripts/make/run.sh backup-postgres

backup-redis: bin/n8n-backup ## Back up the Redis data
	@scripts/make/run.sh backup-redis

backup-n8n: bin/n8n-backup ## Back up the n8n data volume
	@scripts/make/run.sh backup-n8n

cleanup: bin/n8n-backup ## Delete old backups (DRY_RUN=1 only lists them)
	@scripts/make/run.sh cleanup-backups

restore: bin/n8n-backup ## Restore the part that FILE=... is a backup of (YES=1 does not ask)
	@scripts/make/run.sh restore

restore-all: bin/n8n-backup ## Restore the whole recovery point SET=..., or the newest
	@scripts/make/run.sh restore-all

list: bin/n8n-backup ## List the recovery points
	@scripts/make/run.sh list

status: bin/n8n-backup ## Say how old, whole and proven the backups are
	@scripts/make/run.sh status

verify: bin/n8n-backup ## Prove that the files of SET=..., or of the newest point, are whole
	@scripts/make/run.sh verify

doctor: bin/n8n-backup ## Look at everything that a backup needs
	@scripts/make/run.sh doctor

check: ## Check syntax, style and lints of scripts and sources
	@scripts/make/check.sh

smoke: bin/n8n-backup ## Run the crontab's command line on a scratch stack
	@scripts/make/smoke.sh

test: bin/n8n-backup ## Run the tests of the main job, on scratch stacks
	@scripts/make/test.sh

test-all: bin/n8n-backup ## Run every test
	@scripts/make/test.sh all

faults: bin/n8n-backup ## Run the fault suite in full, FAULT_ROUNDS times (FAULT_COMPRESSOR=igzip, FAULT_PASSPHRASE=..., FAULT_THREADS)
	@scripts/make/faults.sh

demo: bin/n8n-backup ## Back up, destroy and restore a scratch stack
	@scripts/make/demo.sh

bench: bin/n8n-backup ## Measure against the scripts' pipelines (BENCH_MB, BENCH_DATA, BENCH_ROUNDS, BENCH_GROWTH=1, BENCH_WRITE=1)
	@scripts/make/bench.sh

clean: ## Remove what was built
	@rm -rf bin target
