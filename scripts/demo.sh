#!/usr/bin/env bash
# From a fresh clone to sealed and verified documents and a short load test.
#
# environment: LISTEN    where the appliance listens (127.0.0.1:7443)
#              DURATION  of the load test (15s)
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"
cd "$ROOT" || exit "$EX_SOFTWARE"

LISTEN=${LISTEN:-127.0.0.1:7443}
DURATION=${DURATION:-15s}
demo=$TARGET/demo
appliance=$demo/appliance
sealed=$demo/sealed
report=$demo/report
log=$demo/appliance.log

[[ $LISTEN =~ ^[0-9.]+:[0-9]+$ ]] || die "$EX_USAGE" "LISTEN must be ADDRESS:PORT, such as 127.0.0.1:7543; it is '$LISTEN'"
[[ $DURATION =~ ^[0-9]+(ms|s|m)$ ]] || die "$EX_USAGE" "DURATION must be a time such as 15s; it is '$DURATION'"

# listening: whether somebody answers at $LISTEN
listening() { (exec 3<>"/dev/tcp/${LISTEN%:*}/${LISTEN##*:}") 2>/dev/null; }

# The sealer that a document names. Every sample is in an encoding that has ASCII in its place.
sealer_of() { grep -aom 1 'schemeID="VKN_TCKN">[0-9]*<' "$1" | grep -oE '[0-9]{10,11}'; }

build() {
  softhsm2_library >/dev/null || MISSING+=(softhsm2)
  need cc gcc libc6-dev
  need xmlsec1 xmlsec1
  install_missing
  need_rust
  say "Building (release)"
  cargo_step "the build" build --release --locked --bins
  muhurdar=$TARGET/release/muhurdar
  loadtest=$TARGET/release/muhurdar-loadtest
}

start() {
  if listening; then
    die "$EX_UNAVAILABLE" "something listens on $LISTEN already. Stop it, or take another port: make demo LISTEN=127.0.0.1:7543"
  fi
  rm -rf "$demo"
  mkdir -p "$sealed" "$report" || die "$EX_NOPERM" "cannot write to $demo"
  say "Starting a throw-away appliance on $LISTEN"
  start_appliance "$muhurdar" "$appliance" "$LISTEN" "$log"
  note "token, test CA and keys of three taxpayers: $appliance"
}

seal_and_verify() {
  local file name taxpayer ours theirs failed=0 count=0
  say "Sealing deploy/samples and verifying each seal with muhurdar and with xmlsec1"
  printf '    %-28s %-12s %-9s %-9s %s\n' document sealer muhurdar xmlsec1 bytes
  for file in deploy/samples/*.xml; do
    name=${file##*/}
    taxpayer=$(sealer_of "$file") || die "$EX_SOFTWARE" "$file names no sealer"
    run "$muhurdar" seal --config "$appliance/client.toml" --taxpayer "$taxpayer" "$file" --out "$sealed" >"$demo/seal.out" 2>&1 || {
      cat "$demo/seal.out" >&2
      die 1 "$file was not sealed; the appliance's log is $log"
    }
    ours=ok theirs=ok
    run "$muhurdar" verify "$sealed/$name" >"$demo/verify.out" 2>&1 || { ours=FAILED failed=1; cat "$demo/verify.out" >&2; }
    run xmlsec1 --verify --insecure --id-attr:Id http://uri.etsi.org/01903/v1.3.2#:SignedProperties \
      "$sealed/$name" >"$demo/xmlsec1.out" 2>&1 || { theirs=FAILED failed=1; cat "$demo/xmlsec1.out" >&2; }
    printf '    %-28s %-12s %-9s %-9s %s\n' "$name" "$taxpayer" "$ours" "$theirs" "$(wc -c <"$sealed/$name")"
    count=$((count + 1))
  done
  [ "$failed" = 0 ] || die 1 "a seal did not verify (above)"
  [ "$count" -gt 0 ] || die "$EX_SOFTWARE" "there are no samples in deploy/samples"
  printf '    %s%d documents sealed, each verified twice%s, in %s\n' "$GREEN" "$count" "$PLAIN" "$sealed"
}

load() {
  say "Load test, $DURATION"
  local code json
  run "$loadtest" run --dir "$appliance" --metrics "$(metrics_of "$log")" --duration "$DURATION" --out "$report"
  code=$?
  [ "$code" != 0 ] || return
  # Figures that a busy machine has spoilt tell of the machine. Seals that are wrong or missing tell of the service.
  json=$(find "$report" -name '*.json' -print -quit)
  if [ "$code" = 1 ] && [ -n "$json" ] && grep -q '"errors": {}' "$json" && grep -q '"verify_failures": 0' "$json"; then
    note "Every request was answered and every seal looked at verified, but the figures are not valid: this machine was too busy (above)."
    return
  fi
  die 1 "the load test failed; the appliance's log is $log"
}

clean_up_on_exit
build
began=$SECONDS
start
seal_and_verify
load
say "Done in $((SECONDS - began)) s after the build"
html=$(find "$report" -name '*.html' -print -quit)
[ -z "$html" ] || note "report:           $html"
note "sealed documents: $sealed"
note "try it yourself:  $muhurdar dev --dir /tmp/muhurdar-dev"
