#!/usr/bin/env bash
# Fuzzes the document engine (xades/fuzz) and the service's front end (signer/fuzz): each target in turn, for SECONDS of its
# own (1200). Starts from what is in their seeds/ and from what earlier runs found of interest (their corpus/, not committed).
#
# usage: fuzz.sh [SECONDS]
#        fuzz.sh --if-built SECONDS   only where the targets were built before, so that no minutes go into building what
#                                     they depend on: the short run of `make test`
#
# environment: TARGETS    some of them (canonical pieces seal_then_verify front_end)
#              SANITIZER  none, or address: a build of its own, about half as fast, which watches the vector code (none)
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"
cd "$ROOT" || exit "$EX_SOFTWARE"

if_built=''
if [ "${1:-}" = --if-built ]; then
  if_built=1
  shift
fi
seconds=${1:-1200}
read -ra targets <<<"${TARGETS:-canonical pieces seal_then_verify front_end}"
sanitizer=${SANITIZER:-none}
built=$TARGET/fuzz
[ "$sanitizer" = none ] || built=$TARGET/fuzz-$sanitizer

[[ $seconds =~ ^[1-9][0-9]*$ ]] || die "$EX_USAGE" "the time of each target is given in whole seconds; it is '$seconds'"
[[ $sanitizer =~ ^(none|address)$ ]] || die "$EX_USAGE" "SANITIZER is none or address; it is '$sanitizer'"
# The folder of a target.
home() {
  local file
  for file in "$ROOT"/*/fuzz/fuzz_targets/"$1".rs; do
    [ -f "$file" ] && dirname "$(dirname "$file")"
  done
}

for target in "${targets[@]}"; do
  [ -n "$(home "$target")" ] || die "$EX_USAGE" "there is no fuzz target '$target'; there are: $(basename -s .rs -a ./*/fuzz/fuzz_targets/*.rs | xargs)"
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
  run cargo +nightly fuzz build --fuzz-dir "$(home "$target")" --sanitizer "$sanitizer" --target-dir "$built" "$target" ||
    die 1 "the fuzz target $target does not build (the compiler's messages are above)"
done

# The front end's target has it prepare an appliance.
export MUHURDAR_BIN=${MUHURDAR_BIN:-$TARGET/debug/muhurdar}
case " ${targets[*]} " in
  *' front_end '*) [ -x "$MUHURDAR_BIN" ] || cargo_step "the build of muhurdar" build --locked --bin muhurdar ;;
esac

# libFuzzer's own binary and not `cargo fuzz run`: a signal to it ends it, and nothing is left running.
for target in "${targets[@]}"; do
  say "Fuzzing: $target, $seconds s"
  cd "$(home "$target")" || exit "$EX_SOFTWARE"
  mkdir -p "corpus/$target" "artifacts/$target" "$built/log" || die "$EX_NOPERM" "cannot write to $PWD"
  log=$built/log/$target
  run "$binaries/$target" "corpus/$target" seeds -dict="$ROOT/xades/fuzz/xml.dict" -max_len=4096 -timeout=10 -rss_limit_mb=2048 \
    -max_total_time="$seconds" -artifact_prefix="artifacts/$target/" -print_final_stats=1 >"$log" 2>&1 || {
    code=$?
    tail -n 40 "$log" >&2
    die 1 "$target found something, or could not run ($code; above, all of it in $log). The input is in $PWD/artifacts/$target; again: $binaries/$target FILE"
  }
  note "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, nothing found"
done
