#!/usr/bin/env bash
# Makes ready what other people wrote and Debian does not package: signxml and grpcio (PyPI) in target/interop-venv, xml-sec
# (crates.io) in target/interop-xml-sec, @grpc/grpc-js (npm) in target/interop-node, buf (npm) in target/interop-buf, the clients in Go
# and in Java in target/interop-go and target/interop-java. Does nothing where they are ready.
# usage: tests/interop/setup.sh
# needs: python3 with venv, cargo, node with npm, go, a JDK with mvn, and each one's registry. The JDK's verifier needs no more than a JDK
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

# The foreign clients: beside the verifiers, so that these do without where those cannot be had.
clients=tests/interop/clients
want=$(cksum <$clients/python/requirements.txt)
if [ -x "$venv/bin/pip" ] && [ "$(cat "$venv/grpc-ready" 2>/dev/null)" != "$want" ]; then
  if "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement $clients/python/requirements.txt; then
    echo "$want" >"$venv/grpc-ready"
  else
    say "cannot install grpcio from PyPI; is the network there?"
  fi
fi

# FROM TO WHAT: the packages that FROM/package-lock.json names, in TO/node_modules. None of them needs its install script.
npm_packages() {
  cmp -s "$1/package-lock.json" "$2/package-lock.json" && [ -d "$2/node_modules" ] && return
  rm -rf "$2.new"
  mkdir -p "$2.new"
  cp "$1/package.json" "$1/package-lock.json" "$2.new"
  if npm ci --prefix "$2.new" --ignore-scripts --no-audit --no-fund --loglevel=error >&2; then
    rm -rf "$2"
    mv "$2.new" "$2"
  else
    rm -rf "$2.new"
    say "cannot install $3 from npm; is the network there?"
  fi
}
if command -v npm >/dev/null 2>&1; then
  npm_packages $clients/node target/interop-node @grpc/grpc-js
  npm_packages tests/interop/buf target/interop-buf buf
else
  say "there is no npm; apt-get install nodejs npm"
fi

# Each a script of its own: it says what it could not have.
$clients/go/setup.sh || failed=69
$clients/java/setup.sh || failed=69

cargo build --quiet --locked --manifest-path tests/interop/xml-sec/Cargo.toml --target-dir target/interop-xml-sec ||
  say "cannot build the xml-sec verifier; is crates.io there, and Rust 1.92 or later?"

exit "$failed"
