#!/usr/bin/env bash
# Makes the PrometheusRule of the plain alert rules, and looks at what the rules promise: a section of the runbook for each alert,
# and a test. With --check nothing is written, and the PrometheusRule that is there must be what would be.
# shellcheck source=scripts/common.sh
source "$(dirname "$0")/common.sh"
cd "$ROOT" || exit "$EX_SOFTWARE"

# In a Turkish locale the small letter of I is another one.
export LC_ALL=C

RULES=deploy/prometheus/muhurdar.rules.yaml
RULE_OBJECT=deploy/prometheus/operator/prometheusrule.yaml
RUNBOOK=docs/runbook.md
URL=https://github.com/muhurdar/muhurdar/blob/main/$RUNBOOK

# The object is its head and the very lines of the plain file, two columns to the right: nothing is read and written anew.
rule_object() {
  cat <<'HEAD'
# Made of ../muhurdar.rules.yaml by scripts/alerts.sh, which `make test` checks: change that one.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: muhurdar
  labels:
    app.kubernetes.io/name: muhurdar
spec:
HEAD
  sed -n '/^groups:/,$ s/^\(..*\)$/  \1/p; /^groups:/,$ s/^$//p' "$RULES"
}

# wrong TEXT: something that is not as promised
WRONG=0
wrong() {
  printf '%s\n' "$*" >&2
  WRONG=1
}

alerts=$(sed -n 's/^ *- alert: \(.*\)$/\1/p' "$RULES")
[ -n "$alerts" ] || die "$EX_SOFTWARE" "no alert was found in $RULES"
[ -z "$(uniq -d <<<"$(sort <<<"$alerts")")" ] || wrong "$RULES: two alerts of one name"
for alert in $alerts; do
  # An alert's own lines: up to the next one.
  grep -qF "runbook_url: \"$URL#${alert,,}\"" \
    <<<"$(sed -n "/^ *- alert: $alert\$/,/^ *- alert: /{/^ *runbook_url: /p}" "$RULES" | head -n 1)" ||
    wrong "$alert: its runbook_url is not $URL#${alert,,}"
  grep -qx "## $alert" "$RUNBOOK" || wrong "$alert: $RUNBOOK has no section of that name"
  # That it is quiet where all is well, and that it fires.
  grep -q "alertname: $alert }" deploy/prometheus/*.test.yaml || wrong "$alert: no test has it quiet"
  grep -qx " *alertname: $alert" deploy/prometheus/*.test.yaml || wrong "$alert: no test has it fire"
done
while read -r section; do
  grep -qx "$section" <<<"$alerts" || wrong "$RUNBOOK: there is no alert $section"
done < <(sed -n 's/^## //p' "$RUNBOOK")
# Inhibit rules by names that no alert has would inhibit nothing, without a word.
while read -r name; do
  grep -qx "$name" <<<"$alerts" || wrong "deploy/prometheus/alertmanager.yaml: there is no alert $name"
done < <(sed 's/#.*//' deploy/prometheus/alertmanager.yaml | grep -o 'Muhurdar[A-Za-z]\+' | sort -u)

case ${1:-} in
  --check)
    diff -u "$RULE_OBJECT" <(rule_object) >&2 || wrong "$RULE_OBJECT is not what the rules are: run scripts/alerts.sh"
    ;;
  '') rule_object >"$RULE_OBJECT" || die "$EX_UNAVAILABLE" "$RULE_OBJECT could not be written" ;;
  *) die "$EX_USAGE" "unknown argument $1 (--check, or none)" ;;
esac
[ "$WRONG" = 0 ] || die 1 "the alerts do not hold what they promise (above)"
