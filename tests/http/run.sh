#!/usr/bin/env bash
# Tests the real daemon over the loopback network: tests/http/run.sh BUILD_DIR (default build/release).
# Ends with 'N passed, N failed'. Exit code 0 when nothing failed.
set -eu
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
  "$build/libmodels.a" "$build/libhwgq.a" -o "$folder/make_fixtures" -ljpeg -larchive -ldl -ljansson -lxxhash -lm
"$folder/make_fixtures" "$folder"
# The daemon ends by itself when the suite does; a leak report of the sanitizers must fail the test that stops it.
python3 -B tests/http/suite.py "$build" "$folder"
