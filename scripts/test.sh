#!/usr/bin/env bash
# Everything that must hold before a change is merged: formatting, lints, licences, and every test. `.ci/run` calls it.
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"
cd "$ROOT" || exit "$EX_SOFTWARE"

# A setup script of a test folder: what only its own tests need. Those tests say that they skip where it could not be had.
SETUP=(tests/interop/setup.sh tests/tokens/setup.sh)

tools() {
  softhsm2_library >/dev/null || MISSING+=(softhsm2)
  need softhsm2-util softhsm2
  need cc gcc libc6-dev
  need xmlsec1 xmlsec1
  need xmllint libxml2-utils
  need openssl openssl
  need curl curl ca-certificates
  need pkcs11-tool opensc
  need python3 python3
  python3 -c 'import ensurepip, venv' 2>/dev/null || MISSING+=(python3-venv)
  need shellcheck shellcheck
  install_missing
  need_rust
  need_components
}

# GİB's Schematron runs in SaxonC, and the schemas are checked in libxml2 by way of lxml: both from PyPI, in a folder of
# their own. The tests that use it find it by its path.
python_tools() {
  local venv=$TARGET/test-venv
  [ -x "$venv/bin/python" ] && "$venv/bin/python" -c 'import lxml, saxonche' 2>/dev/null && return
  say "Installing lxml and saxonche into $venv"
  rm -rf "$venv"
  if ! run python3 -m venv "$venv" || ! run "$venv/bin/pip" install -q --disable-pip-version-check lxml saxonche; then
    rm -rf "$venv"
    note "They could not be had (no network?): the tests against GİB's schemas and Schematron will say that they skip."
  fi
}

# promtool, for the tests of the alert rules. Debian's package of it would start a Prometheus server here, so only its
# files are taken.
promtool() {
  type -P promtool && return
  local tools=$TARGET/prometheus
  if [ ! -x "$tools/usr/bin/promtool" ]; then
    command -v dpkg-deb >/dev/null 2>&1 || return
    mkdir -p "$tools"
    (cd "$tools" && apt-get -q download prometheus && dpkg-deb -x prometheus_*.deb . && rm -f prometheus_*.deb) >"$tools/log" 2>&1 || return
  fi
  echo "$tools/usr/bin/promtool"
}

alert_rules() {
  local promtool
  run scripts/alerts.sh --check || exit 1
  if promtool=$(promtool); then
    run "$promtool" test rules deploy/prometheus/*.test.yaml >"$TARGET/promtool.log" 2>&1 || {
      cat "$TARGET/promtool.log" >&2
      die 1 "an alert rule does not do what its test says (above)"
    }
  else
    note "promtool could not be had (Debian's package prometheus): the tests of the alert rules did not run."
  fi
}

# The unit as systemd reads it here. What it says of other units is not ours, and the binary need not be installed.
systemd_unit() {
  local unit=$TARGET/muhurdar.service said
  if ! command -v systemd-analyze >/dev/null 2>&1; then
    note "systemd-analyze is not here, so the unit was not checked."
    return
  fi
  sed 's|^ExecStart=/usr/local/bin/muhurdar|ExecStart=/bin/true|' deploy/systemd/muhurdar.service >"$unit"
  said=$(systemd-analyze verify --man=no "$unit" 2>&1 | grep -F muhurdar.service)
  [ -z "$said" ] || die 1 "systemd finds fault with deploy/systemd/muhurdar.service: $said"
}

supply_chain() {
  say "Licences, bans, advisories (cargo deny)"
  if ! cargo deny --version >/dev/null 2>&1; then
    note "cargo-deny is not installed, so licences, bans and advisories were not checked here: cargo install --locked cargo-deny"
    return
  fi
  cargo_step "cargo deny" deny --locked check bans licenses sources
  # The advisory database is fetched from GitHub: no network is no verdict, a found advisory is one.
  if run cargo deny fetch db >/dev/null 2>&1; then
    cargo_step "cargo deny" deny --locked check advisories
  else
    note "The advisory database could not be fetched, so advisories were not checked here."
  fi
}

clean_up_on_exit
tools
python_tools
for script in "${SETUP[@]}"; do
  [ -x "$script" ] || continue
  say "$script"
  run "$script" || note "$script could not set everything up: its tests will say what they skip."
done

say "Formatting"
cargo_step "formatting (cargo fmt mends it)" fmt --all --check

say "Scripts (shellcheck), unsafe code, alert rules (promtool), the unit (systemd-analyze)"
run shellcheck -x scripts/*.sh .ci/run || die 1 "shellcheck found fault with a script (above)"
run scripts/check-unsafe.sh || exit 1
alert_rules
systemd_unit

say "Lints (clippy)"
cargo_step "clippy" clippy --workspace --all-targets --locked -- -D warnings

supply_chain

say "Tests"
# Together, so that the binaries get the very features that the tests are built with: the end-to-end tests run these.
cargo_step "the build of the tests" build --workspace --bins --tests --locked
export MUHURDAR_BIN=$TARGET/debug/muhurdar MUHURDAR_LOADTEST_BIN=$TARGET/debug/muhurdar-loadtest
export MUHURDAR_TEST_VENV=$TARGET/test-venv
# Where `make fuzz` was run before; else it says that it does not.
run scripts/fuzz.sh --if-built 20 || exit 1
# The end: what cargo says last is what this says last.
run cargo test --workspace --locked --no-fail-fast
