#!/usr/bin/env bash
# Tests what surrounds the daemon in service: monitoring, proxies, installation, manifests. tests/deploy/run.sh BUILD_DIR (default
# build/release). A suite is a file suite_*.py here, called with the build and an empty folder. Ends with 'N passed, N failed'.
#   SUITES="prometheus proxies" tests/deploy/run.sh     only these
set -eu -o pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/release}
[ -x "$build/hwgqd" ] || {
  echo "tests/deploy/run.sh: $build/hwgqd is missing: run make BUILD=$build first" >&2
  exit 2
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
passed=0 failed=0 skipped=0
for suite in tests/deploy/suite_*.py; do
  name=${suite##*/suite_} name=${name%.py} status=0
  [[ " ${SUITES:-$name} " == *" $name "* ]] || continue
  mkdir "$folder/$name"
  python3 -B "$suite" "$build" "$folder/$name" | tee "$folder/output" || status=$?
  counts=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$folder/output" | tail -1) || counts="0 passed, 1 failed"
  read -r p _ f _ s _ <<<"${counts//,/}"
  [ "$status" -eq 0 ] || [ "$f" -gt 0 ] || f=1
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + ${s:-0}))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
