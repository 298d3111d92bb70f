#!/usr/bin/env bash
# Fuzzes the document engine: each target of xades/fuzz in turn, for SECONDS of its own (1200). Starts from the documents
# in xades/fuzz/seeds and from what earlier runs found of interest (xades/fuzz/corpus, not committed).
#
# usage: fuzz.sh [SECONDS]
#        fuzz.sh --if-built SECONDS   only where the targets were built before, so that no minutes go into building what
#                                     they depend on: the short run of `make test`
#
# environment: TARGETS    some of them (canonical pieces seal_then_verify)
#              SANITIZER  none, or address: a build of its own, about half as fast, which watches the vector code (none)
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"
cd "$ROOT/xades/fuzz" || exit "$EX_SOFTWARE"

if_built=''
if [ "${1:-}" = --if-built ]; then
  if_built=1
  shift
fi
seconds=${1:-1200}
read -ra targets <<<"${TARGETS:-canonical pieces seal_then_verify}"
sanitizer=${SANITIZER:-none}
built=$TARGET/fuzz
[ "$sanitizer" = none ] || built=$TARGET/fuzz-$sanitizer

[[ $seconds =~ ^[1-9][0-9]*$ ]] || die "$EX_USAGE" "the time of each target is given in whole seconds; it is '$seconds'"
[[ $sanitizer =~ ^(none|address)$ ]] || die "$EX_USAGE" "SANITIZER is none or address; it is '$sanitizer'"
for target in "${targets[@]}"; do
  [ -f "fuzz_targets/$target.rs" ] || die "$EX_USAGE" "there is no fuzz target '$target'; there are: $(cd fuzz_targets && echo *.rs)"
done

skip() {
  note "No fuzzing: $*"
  exit 0
}

# A toolchain that is asked for by name must not be installed for it.
export RUSTUP_AUTO_INSTALL=0
[ -d "$HOME/.cargo/bin" ] && PATH=$PATH:$HOME/.cargo/bin
cargo +nightly --version >/dev/null 2>&1 ||
  skip "it needs a nightly compiler (rustup toolchain install nightly --profile minimal)."
cargo +nightly fuzz --version >/dev/null 2>&1 || skip "it needs cargo-fuzz (cargo install --locked cargo-fuzz)."
binaries=$built/$(rustc +nightly -vV | sed -n 's/^host: //p')/release
for target in "${targets[@]}"; do
  [ -z "$if_built" ] || [ -x "$binaries/$target" ] ||
    skip "its targets were never built here, which takes minutes (make fuzz builds them, and then this runs too)."
done

clean_up_on_exit
say "Building the fuzz targets"
for target in "${targets[@]}"; do
  run cargo +nightly fuzz build --fuzz-dir . --sanitizer "$sanitizer" --target-dir "$built" "$target" ||
    die 1 "the fuzz target $target does not build (the compiler's messages are above)"
done

# libFuzzer's own binary and not `cargo fuzz run`: a signal to it ends it, and nothing is left running.
for target in "${targets[@]}"; do
  say "Fuzzing: $target, $seconds s"
  mkdir -p "corpus/$target" "artifacts/$target" "$built/log" || die "$EX_NOPERM" "cannot write to $PWD"
  log=$built/log/$target
  run "$binaries/$target" "corpus/$target" seeds -dict=xml.dict -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
    -max_total_time="$seconds" -artifact_prefix="artifacts/$target/" -print_final_stats=1 >"$log" 2>&1 || {
    code=$?
    tail -n 40 "$log" >&2
    die 1 "$target found something, or could not run ($code; above, all of it in $log). The input is in xades/fuzz/artifacts/$target; again: $binaries/$target FILE"
  }
  note "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, nothing found"
done
