#!/usr/bin/env bash
# A pool under load on a long bad day: faults of every kind at random, nothing lost, nothing left behind.
# usage: scripts/soak.sh MINUTES      (MUHURDAR_SOAK_SEED=N repeats a day)
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"
cd "$ROOT" || exit "$EX_SOFTWARE"

MINUTES=${1:-10}
[[ $MINUTES =~ ^[1-9][0-9]*$ ]] || die "$EX_USAGE" "MINUTES is a whole number, not \"$MINUTES\": make soak MINUTES=60"
clean_up_on_exit
softhsm2_library >/dev/null || MISSING+=(softhsm2)
need cc gcc libc6-dev
install_missing
need_rust
cargo_step "the build of the soak" build -p muhurdar-pool --tests --locked
export MUHURDAR_SOAK_SECONDS=$((MINUTES * 60))
run cargo test -q -p muhurdar-pool --test soak --locked
