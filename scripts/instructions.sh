#!/usr/bin/env bash
# Instructions that the document engine takes for a document, counted by callgrind: figures which no other work on the
# machine disturbs, and which the next run repeats to the instruction. SHA-256 counts high here (valgrind does not know
# the processor's SHA instructions), so the engine's own work is the difference.
# usage: instructions.sh
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"
cd "$ROOT" || exit "$EX_SOFTWARE"

command -v valgrind >/dev/null 2>&1 || {
  note "Instructions were not counted: valgrind is not installed (apt-get install valgrind)."
  exit 0
}
need_rust
engine=$(cargo bench --locked --package muhurdar-xades --bench engine --no-run --message-format=json 2>/dev/null |
  sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -x "$engine" ] || die 1 "the benchmark does not build: cargo bench --package muhurdar-xades --bench engine"

# Of a task on a row of the table: ten times, less what the first times cost that are left out.
count() {
  local times out
  for times in 2 12; do
    out=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null --toggle-collect='engine::measured*' \
      "$engine" --callgrind "$1" "$2" "$times" 2>&1 | sed -n 's/.*Collected : *//p')
    [ -n "$out" ] || die 1 "callgrind counted nothing for $1"
    echo "$out"
  done | awk 'NR == 1 { first = $1 } END { printf "%d", ($1 - first) / 10 }'
}

say "Instructions per document (callgrind)"
printf '    %-27s%14s%14s%16s%14s\n' '' canonicalize sha256 'engine alone' prepare
row=0
for name in '9 KB' '100 KB, 84 KB attachment' '101 KB dense' '260 KB, 240 KB attachment'; do
  canonicalize=$(count canonicalize "$row") sha256=$(count sha256 "$row") prepare=$(count prepare "$row")
  printf '    %-27s%14d%14d%16d%14d\n' "$name" "$canonicalize" "$sha256" "$((canonicalize - sha256))" "$prepare"
  row=$((row + 1))
done
