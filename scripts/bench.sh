#!/usr/bin/env bash
# The benchmarks: the engine's ratios (criterion), then seals per second through mutual TLS beside the raw rate of the
# same token in the same run.
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"
cd "$ROOT" || exit "$EX_SOFTWARE"

clean_up_on_exit
softhsm2_library >/dev/null || MISSING+=(softhsm2)
need cc gcc libc6-dev
install_missing
need_rust
