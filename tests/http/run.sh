#!/usr/bin/env bash
# Tests the real daemon over the loopback network: tests/http/run.sh BUILD_DIR (default build/release).
# SUITES="load life" runs some suites only.
# Ends with 'N passed, N failed'. Exit code 0 when nothing failed.
set -eu -o pipefail
cd "$(dirname "$0")/../.."
build=${1:-build/release}
[ -x "$build/hwgqd" ] || {
  echo "tests/http/run.sh: $build/hwgqd is missing: run make BUILD=$build first" >&2
  exit 2
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# The build directory remembers the compiler and its flags, sanitizers included.
read -r -a compile <<<"$(cat "$build/flags")"
"${compile[@]}" -MF "$folder/make_fixtures.d" tests/http/make_fixtures.c tests/support/random.c tests/support/networks.c \
  "$build/libmodels.a" "$build/libhwgq.a" -o "$folder/make_fixtures" -ljpeg -lspng -lwebp -larchive -ldl -ljansson -lxxhash -lm
"$folder/make_fixtures" "$folder"
# Each suite ends with its counts; all of them together are the last line. A suite is a file suite*.py here, called with the build
# and the folder of fixtures; it stops its daemons itself, so that a leak report of the sanitizers fails the test that does it.
passed=0 failed=0 skipped=0
suites=(tests/http/suite_*.py)
[ -z "${SUITES:-}" ] || read -r -a suites <<<"$(printf 'tests/http/suite_%s.py ' $SUITES)"
for suite in "${suites[@]}"; do
  status=0
  python3 -B "$suite" "$build" "$folder" | tee "$folder/output" || status=$?
  counts=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$folder/output" | tail -1) || counts="0 passed, 1 failed"
  read -r p _ f _ s _ <<<"${counts//,/}"
  [ "$status" -eq 0 ] || [ "$f" -gt 0 ] || f=1
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + ${s:-0}))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
