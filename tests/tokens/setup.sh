#!/usr/bin/env bash
# Makes ready two more PKCS#11 implementations to test against, beside SoftHSM2: kryoptic (crates.io, built into target/tokens) and
# opencryptoki (Debian). Does nothing where they are ready; the tests say what they skip where one could not be had.
# usage: tests/tokens/setup.sh
# needs: cargo and crates.io; for kryoptic OpenSSL's headers, a C compiler and libclang.
set -u
cd "$(dirname "$0")/../.." || exit 70
failed=0
say() { echo "setup.sh: $1" >&2; failed=69; }
# Nothing is installed over the head of somebody's machine: opencryptoki's package adds a group and a daemon. A container or a CI runner has
# no service manager.
throw_away() { [ "$(id -u)" = 0 ] && [ ! -d /run/systemd/system ] && command -v apt-get >/dev/null 2>&1; }
install() { throw_away && apt-get -q -y install --no-install-recommends "$@" </dev/null >/dev/null 2>&1; }

# bindgen wants libclang, and the compiler's own headers, which Debian's libclang does not bring.
headers=$(cc -print-file-name=include 2>/dev/null)
export BINDGEN_EXTRA_CLANG_ARGS="${BINDGEN_EXTRA_CLANG_ARGS:-} -isystem $headers"
libclang() { find /usr/lib/llvm-*/lib /usr/lib/*/ -maxdepth 1 -name "libclang-[0-9]*.so*" 2>/dev/null | head -n 1; }
if [ -n "${LIBCLANG_PATH:-}" ] || [ -n "$(libclang)" ] || install libclang1-14 || install libclang1; then
  pkg-config --exists 'openssl >= 3.0.7' 2>/dev/null || install libssl-dev pkg-config
  cargo build --quiet --locked --manifest-path tests/tokens/kryoptic/Cargo.toml --target-dir target/tokens 2>target/kryoptic.log ||
    say "cannot build kryoptic; see target/kryoptic.log (apt-get install libssl-dev pkg-config libclang-dev)"
else
  say "kryoptic is not built: it needs libclang (apt-get install libclang-dev)"
fi

command -v pkcsslotd >/dev/null 2>&1 || install opencryptoki ||
  say "opencryptoki is not installed (apt-get install opencryptoki)"

exit "$failed"
