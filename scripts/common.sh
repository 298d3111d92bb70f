# Shared by the scripts behind the Makefile; sourced, not run.
#
# What a script here promises: it says in one sentence what it could not do and what to do next, exits with a code from
# sysexits(3), and leaves nothing running that it started.
# shellcheck shell=bash disable=SC2034 # names that those who source this use

set -uo pipefail

readonly EX_USAGE=64 EX_UNAVAILABLE=69 EX_SOFTWARE=70 EX_NOPERM=77

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd) || exit "$EX_SOFTWARE"
readonly ROOT
# The same place for cargo and for these scripts, also where the caller's environment has another default.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}
TARGET=$CARGO_TARGET_DIR
# The oldest compiler that builds this: `rust-version` of the workspace.
RUST_MINIMUM=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$ROOT/Cargo.toml")

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
  BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' PLAIN=$'\e[0m'
else
  BOLD='' DIM='' RED='' GREEN='' PLAIN=''
fi
readonly BOLD DIM RED GREEN PLAIN

# say TEXT: a heading, with the time since the script began
say() { printf '\n%s==> %s%s %s(%d:%02d)%s\n' "$BOLD" "$*" "$PLAIN" "$DIM" "$((SECONDS / 60))" "$((SECONDS % 60))" "$PLAIN"; }

# note TEXT: something to know, not a failure
note() { printf '%s    %s%s\n' "$DIM" "$*" "$PLAIN"; }

# die CODE TEXT
die() {
  local code=$1
  shift
  printf '%serror:%s %s\n' "$RED" "$PLAIN" "$*" >&2
  exit "$code"
}

# ---------------------------------------------------------------------------------------------------------------------
# Children. A script that waits for a foreground command hears a signal only when that command is done; so what takes
# long runs in the background, and the script waits for it where a trap can interrupt.

CHILD=''  # the command that `run` waits for
SERVER='' # a server that outlives single commands

# run COMMAND...: as a foreground command, but interruptible
run() {
  local code
  "$@" &
  CHILD=$!
  wait "$CHILD"
  code=$?
  CHILD=''
  return "$code"
}

# stop PID SECONDS: SIGTERM, and SIGKILL when it does not listen
stop() {
  local pid=$1 tenths=$(($2 * 10))
  kill -TERM "$pid" 2>/dev/null || return 0
  while kill -0 "$pid" 2>/dev/null; do
    if [ "$((tenths -= 1))" -lt 0 ]; then
      kill -KILL "$pid" 2>/dev/null
      break
    fi
    sleep 0.1
  done
  wait "$pid" 2>/dev/null
  return 0
}

# start_appliance BINARY DIR LISTEN LOG: a throw-away appliance, as SERVER; returns when it listens
start_appliance() {
  local binary=$1 dir=$2 listen=$3 log=$4 tenths=600 code
  "$binary" dev --dir "$dir" --listen "$listen" >"$log" 2>&1 &
  SERVER=$!
  until grep -q 'at https://' "$log" 2>/dev/null; do
    if ! kill -0 "$SERVER" 2>/dev/null; then
      wait "$SERVER"
      code=$?
      SERVER=''
      tail -n 5 "$log" >&2
      die "$code" "the appliance did not start; its own words are above, and all of them in $log"
    fi
    [ "$((tenths -= 1))" -gt 0 ] || die "$EX_UNAVAILABLE" "the appliance does not listen after 60 s; see $log"
    sleep 0.1
  done
}

# metrics_of LOG: where an appliance says that its metrics are. It takes another port than the usual where that is taken.
metrics_of() { sed -n 's|^metrics at \(http://.*\)$|\1|p' "$1" | head -n 1; }

# cleanup: on every way out
cleanup() {
  local code=$?
  trap '' INT TERM HUP
  trap - EXIT
  if [ -n "$CHILD" ]; then stop "$CHILD" 5; fi
  if [ -n "$SERVER" ]; then stop "$SERVER" 15; fi
  exit "$code"
}

clean_up_on_exit() {
  trap cleanup EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  trap 'exit 129' HUP
}

# ---------------------------------------------------------------------------------------------------------------------
# What has to be installed.

MISSING=() # Debian packages

# need COMMAND PACKAGE...: the packages that bring a command, where it is missing
need() {
  local command=$1
  shift
  command -v "$command" >/dev/null 2>&1 || MISSING+=("$@")
}

softhsm2_library() {
  local library
  for library in ${MUHURDAR_SOFTHSM2:+"$MUHURDAR_SOFTHSM2"} /usr/lib/softhsm/libsofthsm2.so \
    /usr/lib/*/softhsm/libsofthsm2.so /usr/lib64/softhsm/libsofthsm2.so /usr/lib64/pkcs11/libsofthsm2.so \
    /usr/local/lib/softhsm/libsofthsm2.so /opt/homebrew/lib/softhsm/libsofthsm2.so; do
    if [ -e "$library" ]; then
      echo "$library"
      return
    fi
  done
  return 1
}

# install_missing: the packages that `need` found missing, by apt
install_missing() {
  [ ${#MISSING[@]} -gt 0 ] || return 0
  local as_root=() log list
  list=$(printf '%s\n' "${MISSING[@]}" | sort -u | tr '\n' ' ')
  list=${list% }
  MISSING=()
  command -v apt-get >/dev/null 2>&1 || die "$EX_UNAVAILABLE" \
    "this machine has no apt-get, so these cannot be installed for you: $list. Install what they are called here, then run this again."
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || die "$EX_NOPERM" \
      "installing $list needs root, and there is no sudo. Run as root: apt-get install $list; then run this again."
    # Without a terminal nobody can type the password.
    if [ -t 0 ]; then as_root=(sudo); else as_root=(sudo -n); fi
    "${as_root[@]}" true || die "$EX_NOPERM" \
      "installing $list needs root, and sudo was refused. Run as root: apt-get install $list; then run this again."
  fi
  say "Installing $list"
  log=$(mktemp) || die "$EX_UNAVAILABLE" "no room for a temporary file"
  # shellcheck disable=SC2086 # the list is words
  if ! run "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 update >"$log" 2>&1 ||
    ! run "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 install -y \
      --no-install-recommends $list >>"$log" 2>&1; then
    grep -E '^(E|Err|W):?' "$log" | tail -n 3 >&2
    rm -f "$log"
    die "$EX_UNAVAILABLE" "apt-get could not install $list. Is the network up, and is there a package archive? Install them, then run this again."
  fi
  rm -f "$log"
}

# at_least VERSION MINIMUM
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# need_rust: cargo, new enough
need_rust() {
  local version component
  # rustup's own place, for a shell that was opened before it was installed.
  [ -d "$HOME/.cargo/bin" ] && PATH=$PATH:$HOME/.cargo/bin
  if ! command -v cargo >/dev/null 2>&1; then
    need curl curl ca-certificates
    install_missing
    say "Installing Rust by rustup, for this user"
    local script
    script=$(mktemp) || die "$EX_UNAVAILABLE" "no room for a temporary file"
    if ! run curl --proto '=https' --tlsv1.2 -sSfL https://sh.rustup.rs -o "$script" ||
      ! run sh "$script" -y --profile minimal --no-modify-path; then
      rm -f "$script"
      die "$EX_UNAVAILABLE" "Rust could not be installed from https://sh.rustup.rs. Is the network up? Install Rust $RUST_MINIMUM or newer, then run this again."
    fi
    rm -f "$script"
    PATH=$HOME/.cargo/bin:$PATH
  fi
  version=$(cd "$ROOT" && cargo --version 2>/dev/null | cut -d ' ' -f 2)
  if ! at_least "${version:-0}" "$RUST_MINIMUM"; then
    command -v rustup >/dev/null 2>&1 || die "$EX_UNAVAILABLE" \
      "cargo ${version:-of an unknown version} is too old: Rust $RUST_MINIMUM or newer is needed, for example by rustup (https://rustup.rs)."
    say "Installing a newer Rust by rustup (cargo is ${version:-missing}, $RUST_MINIMUM is needed)"
    run rustup toolchain install stable --profile minimal || die "$EX_UNAVAILABLE" \
      "rustup could not install the stable toolchain. Is the network up? Install Rust $RUST_MINIMUM or newer, then run this again."
    export RUSTUP_TOOLCHAIN=stable
  fi
}

# need_components: what `make test` asks of the toolchain beyond a compiler
need_components() {
  local missing=()
  cargo fmt --version >/dev/null 2>&1 || missing+=(rustfmt)
  cargo clippy --version >/dev/null 2>&1 || missing+=(clippy)
  [ ${#missing[@]} = 0 ] || run rustup component add "${missing[@]}" || die "$EX_UNAVAILABLE" \
    "the toolchain lacks ${missing[*]}, and rustup could not add it. Add it, then run this again."
}

# cargo_step WHAT ARGUMENTS...: cargo, with a sentence where it failed
cargo_step() {
  local what=$1
  shift
  run cargo "$@" || {
    local code=$?
    [ "$code" -lt 128 ] || exit "$code"
    die 1 "$what failed (cargo $1 exited with $code; its messages are above)"
  }
}
