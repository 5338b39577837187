#!/bin/bash
# run-tests.sh [CARGO TEST ARGUMENTS] - installs what the tests need, builds once, runs every test of the workspace.
# A test that is ignored or filtered out fails the run: it tests nothing.
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/scripts/install-deps.sh
PATH=$PATH:/usr/local/go/bin
export CARGO_TERM_COLOR=${CARGO_TERM_COLOR:-never}
# Before any test runs, so that no test waits for it and what fails here says so here.
if [ -z "${KUBEBUILDER_ASSETS:-}" ]; then
  version=$(sed -n 's/^pub const KUBE_VERSION: &str = "\(.*\)";/\1/p' tests/src/cluster.rs)
  tests/scripts/build-kube.sh "${XDG_CACHE_HOME:-$HOME/.cache}/siforge-test/kube-$version" node
fi
version=$(sed -n 's/^pub const COSIGN_VERSION: &str = "\(.*\)";/\1/p' tests/src/cosign.rs)
tests/scripts/build-cosign.sh "${XDG_CACHE_HOME:-$HOME/.cache}/siforge-test/cosign-$version"
[ "$(id -u)" != 0 ] || tests/scripts/make-lolcow.sh "${XDG_CACHE_HOME:-$HOME/.cache}/siforge-test/lolcow-2"
[ "$(id -u)" != 0 ] || tests/bench/setup-apptainer.sh
cargo build --workspace --locked
SIFORGE_BIN_DIR=$(cargo metadata --format-version 1 --no-deps | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')/debug
export SIFORGE_BIN_DIR
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cargo test --workspace --locked --no-fail-fast "$@" 2>&1 | tee "$log"
python3 - "$log" "$#" <<'PY'
import re
import sys

summaries = re.findall(r"^test result: .*? (\d+) passed; (\d+) failed; (\d+) ignored; \d+ measured; (\d+) filtered out", open(sys.argv[1]).read(), re.M)
passed, failed, ignored, filtered = (sum(int(row[i]) for row in summaries) for i in range(4))
print(f"all tests: {passed} passed, {failed} failed, {ignored} ignored, {filtered} filtered out")
if ignored or (filtered and sys.argv[2] == "0"):
    sys.exit("an ignored test is a failure: it tests nothing")
if not passed:
    sys.exit("no test ran")
PY
