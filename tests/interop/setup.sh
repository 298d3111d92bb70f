#!/usr/bin/env bash
# Makes ready the verifiers that Debian does not package: signxml (PyPI) in target/interop-venv, xml-sec (crates.io) in
# target/interop-xml-sec. Does nothing where they are ready.
# usage: tests/interop/setup.sh
# needs: python3 with venv, cargo, PyPI and crates.io. The JDK's verifier needs no more than a JDK
#        (apt-get install default-jdk-headless).
set -eu
cd "$(dirname "$0")/../.."
failed=0
say() { echo "setup.sh: $1" >&2; failed=69; }

venv=target/interop-venv
want=$(cksum <tests/interop/requirements.txt)
if ! [ -x "$venv/bin/python" ] || [ "$(cat "$venv/installed" 2>/dev/null)" != "$want" ]; then
  if ! python3 -m venv "$venv"; then
    say "cannot make $venv; apt-get install python3 python3-venv"
  elif ! "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement tests/interop/requirements.txt; then
    say "cannot install signxml from PyPI; is the network there?"
  else
    echo "$want" >"$venv/installed"
  fi
fi

cargo build --quiet --locked --manifest-path tests/interop/xml-sec/Cargo.toml --target-dir target/interop-xml-sec ||
  say "cannot build the xml-sec verifier; is crates.io there, and Rust 1.92 or later?"

exit "$failed"
