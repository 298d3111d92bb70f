#!/usr/bin/env bash
# `unsafe` stands in the files named here and nowhere else. The lint `unsafe_code = "deny"` already refuses it unless a
# file allows it; this keeps the list of those files short, and in one place where a reviewer sees it grow.
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"
cd "$ROOT" || exit "$EX_SOFTWARE"

allowed=(
  'pool/src/sys/*'             # calls into the PKCS#11 module
  'xades/src/scan/simd.rs'     # vector instructions
  'xades/tests/memory.rs'      # an allocator that counts
  'xades/tests/oracle/mod.rs'  # calls into libxml2, the oracle of the tests
  'tests/tokens/kryoptic/src/lib.rs' # exports the one function of a PKCS#11 module
  'tests/faulty-token/src/*'   # is itself a PKCS#11 module: every function is one that C calls
)

found=0
while IFS= read -r hit; do
  file=${hit%%:*}
  for pattern in "${allowed[@]}"; do
    # shellcheck disable=SC2053 # a pattern is meant
    [[ $file == $pattern ]] && continue 2
  done
  printf '%s\n' "$hit" >&2
  found=1
done < <(find . -name target -prune -o -name '*.rs' -print | sed 's|^\./||' | sort |
  xargs grep -nE '(^|[^[:alnum:]_"`])unsafe([[:space:]]*(\{|fn|impl|trait|extern)|\()|allow\([^)]*unsafe_code' |
  grep -vE '^[^:]*:[0-9]+:[[:space:]]*//')

[ "$found" = 0 ] || die 1 "unsafe code outside the files that may hold it (above). Move it there, or argue for another line in scripts/check-unsafe.sh."
