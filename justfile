# Recipes for everyday work: `just` lists them. Each is one command that can be typed as well.

set shell := ["bash", "-euo", "pipefail", "-c"]

# List the recipes.
default:
    @just --list --unsorted

# Everything that must pass before a merge (root).
all *options:
    tests/run {{ if options == "" { "" } else { "-- " + options } }}

# Format the code.
fmt:
    cargo fmt --all

# What CI says about the code without running it.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --workspace --no-deps --document-private-items --quiet

# The tests of one crate, or some by name: just test scaler, just test balancer queue
test crate *name:
    cargo nextest run -p {{crate}} {{name}}

# Review changed insta snapshots.
review:
    cargo insta review

# What the dependencies are allowed to be.
deny:
    cargo deny check

# The scripts: shellcheck, and their own tests.
scripts:
    shellcheck .ci/run tests/run tests/bench tests/bench.d/* tests/test-scripts dashboards/test
    tests/test-scripts
    deploy/test-scripts

# Prometheus rules, their tests, and the Grafana dashboard.
dashboards:
    cargo build -p balancer
    dashboards/test "${CARGO_TARGET_DIR:-target}/debug/flurry"

# Packages of this machine, and an optimised build of everything (root for packages).
build:
    deploy/install-deps
    deploy/build

# One real tier from nothing, a day of load, and a clean machine (root).
quickstart *options:
    deploy/quickstart {{options}}

# Measure: just bench fork. Without a name: what there is (root).
bench *name:
    tests/bench {{name}}

# A scaling policy and its rivals over a recorded day, without any VM.
simulate policy="":
    cargo run --release -p scaler --example simulate -- deploy/traces/wc98-0630.csv {{policy}}
