#!/usr/bin/env bash
# The benchmarks. First the document engine by itself (criterion, ratios within one run, and instruction counts, which do
# not move with the machine), then the whole service through mutual TLS, each row beside the raw C_Sign rate of the same
# token measured in the same run.
#
# environment: DURATION  of each row (10s)
#              ENGINE=0  leaves the engine out
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"
cd "$ROOT" || exit "$EX_SOFTWARE"

DURATION=${DURATION:-10s}
bench=$TARGET/bench
appliance=$bench/appliance

[[ $DURATION =~ ^[0-9]+(ms|s|m)$ ]] || die "$EX_USAGE" "DURATION must be a time such as 10s; it is '$DURATION'"

# A row: its name, and what it asks of muhurdar-loadtest.
ROWS=(
  'stream 10 KB|--mode stream --size 10k'
  'stream 100 KB|--mode stream --size 100k'
  'stream 260 KB|--mode stream --size 260k'
  'stream 260 KB, seal only|--mode stream --size 260k --signature-only'
  'unary 10 KB|--mode unary --size 10k'
  'unary 100 KB|--mode unary --size 100k'
  'unary 260 KB|--mode unary --size 260k'
  'unary 260 KB, seal only|--mode unary --size 260k --signature-only'
  'unary, digest only|--mode hash-only --size 10k'
)

table() {
  python3 - "$bench" <<'PYTHON'
import json, pathlib, sys
print(f"    {'':26}{'seals/s':>9}{'C_Sign/s':>10}{'ratio':>8}{'p50 ms':>9}{'p99 ms':>9}{'CPU/seal':>10}{'rest':>8}")
for path in sorted(pathlib.Path(sys.argv[1]).glob("row-*/report.json")):
    r = json.loads(path.read_text())
    name = (path.parent / "name").read_text().strip()
    server, latency = r.get("server") or {}, r["latency_us"]
    cpu, token = server.get("cpu_us_per_seal"), server.get("token_cpu_us_per_seal")
    number = lambda value, form: format(value, form) if value is not None else "—"
    rest = cpu - token if cpu is not None and token is not None else None
    print(f"    {name:26}{r['achieved_per_s']:9.0f}{number((r.get('ceiling') or {}).get('sign_per_s'), '.0f'):>10}"
          f"{number(r.get('ratio_to_ceiling'), '.2f'):>8}{latency['p50'] / 1000:9.1f}{latency['p99'] / 1000:9.1f}"
          f"{number(cpu, '.0f'):>10}{number(rest, '.0f'):>8}" + ("" if r.get("valid", True) else "  (not valid: see its report)"))
print("    CPU/seal: microseconds of the service's process; rest: of that, outside the token's own calls.")
PYTHON
}

clean_up_on_exit
softhsm2_library >/dev/null || MISSING+=(softhsm2)
need cc gcc libc6-dev
need xmlsec1 xmlsec1
need python3 python3
install_missing
need_rust

say "Building (dist)"
cargo_step "the build" build --profile dist --locked --bins
if [ "${ENGINE:-1}" != 0 ]; then
  say "The engine (criterion)"
  cargo_step "the benchmark of the engine" bench --locked --package muhurdar-xades
  run scripts/instructions.sh || exit
fi

rm -rf "$bench"
mkdir -p "$bench" || die "$EX_NOPERM" "cannot write to $bench"
start_appliance "$TARGET/dist/muhurdar" "$appliance" 127.0.0.1:0 "$bench/appliance.log"
metrics=$(metrics_of "$bench/appliance.log")
number=0
for row in "${ROWS[@]}"; do
  out=$bench/row-$((number += 1))
  mkdir -p "$out"
  echo "${row%%|*}" >"$out/name"
  say "${row%%|*}, $DURATION"
  # shellcheck disable=SC2086 # the arguments are words
  run "$TARGET/dist/muhurdar-loadtest" run --dir "$appliance" --metrics "$metrics" --duration "$DURATION" --out "$out" ${row#*|} >"$out/said" ||
    note "did not pass; see $out"
done
say "Through the service: $(nproc) processors, $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)"
table
note "reports: $bench"
