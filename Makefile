# Everything one does with this repository. `make` alone lists it.

CARGO ?= cargo
SPEED ?= 1h/s
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help setup build demo serve test lint fmt bench doc clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## checks for Rust and a C compiler; installs Rust with rustup if it is missing
	@command -v cc >/dev/null || { echo "a C compiler is missing: install gcc or clang"; exit 1; }
	@if command -v $(CARGO) >/dev/null; then $(CARGO) --version; else \
		echo "installing Rust with rustup"; \
		curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy,rustfmt; \
	fi

build: ## the binary, in a profile that favours a short wait
	$(CARGO) build --profile quick --locked -p tidemill

demo: build ## a year of flights, replayed live (SPEED=24h/s: a day a second, max: no limit); page on http://127.0.0.1:7480
	$(TARGET)/quick/tidemill demo --speed $(SPEED)

serve: build ## an empty server; PostgreSQL's protocol on 127.0.0.1:7432, HTTP on 127.0.0.1:7480
	$(TARGET)/quick/tidemill serve

test: ## all tests
	$(CARGO) test --workspace --locked --no-fail-fast
	tests/run-clients
	tests/run-postgres
	tests/run-s3

lint: ## format, clippy, and licences and bans if cargo-deny is there
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny check licenses bans; \
		else echo "cargo-deny is not installed: licences and bans not checked"; fi

fmt: ## formats the code
	$(CARGO) fmt --all

bench: ## the benchmarks, in the profile that users get
	$(CARGO) build --profile dist --locked -p tidemill
	$(TARGET)/dist/tidemill bench nexmark

doc: ## the crates' documentation
	$(CARGO) doc --workspace --no-deps --locked

clean: ## removes what was built
	$(CARGO) clean
