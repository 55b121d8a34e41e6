#!/usr/bin/env bash
# Command-line tests of `hwgq`: tests/tool/run.sh BUILD_DIR (default build/release).
# Runs every other script of this folder and ends with 'N passed, N failed'. Exit code 0 when nothing failed.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${1:-build/release}
[ -x "$build/hwgq" ] || {
  echo "tests/tool/run.sh: $build/hwgq is missing: run make BUILD=$build first" >&2
  exit 2
}
hwgq=$PWD/$build/hwgq
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
passed=0 failed=0
exec 3>&1 # for messages of tests whose output goes elsewhere

# ok NAME COMMAND...: a test that passes when the command succeeds.
ok() {
  local name=$1
  shift
  if "$@"; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    {
      echo "FAILED $name: $*"
      sed 's/^/  out: /' "$folder/out" 2>/dev/null | head -20
      sed 's/^/  err: /' "$folder/err" 2>/dev/null | head -20
    } >&3
  fi
}
# runs CODE ARGUMENT...: hwgq with these arguments ends with this code; what it prints goes to $folder/out and $folder/err.
runs() {
  local code=$1 status
  shift
  "$hwgq" "$@" >"$folder/out" 2>"$folder/err" </dev/null
  status=$?
  [ "$status" -eq "$code" ] || { echo "  exit code $status, not $code"; return 1; }
}
# prints TEXT, complains TEXT: the last run's output, its messages, have this in a line.
prints() { grep -qF -- "$1" "$folder/out"; }
complains() { grep -qF -- "$1" "$folder/err"; }
# json FILTER: jq finds the last run's output, read as a list of JSON values, true to this filter.
json() { jq -s -e "$1" "$folder/out" >/dev/null; }

# A small network to play with: 10 classes named 0 to 9, input 3x31x33.
model=$folder/mini.hwgq
"$hwgq" import caffe tests/golden/mini/model.prototxt tests/golden/mini/model.caffemodel -o "$model" --quiet >/dev/null || exit 1

for script in tests/tool/test_*.sh; do
  # shellcheck source=/dev/null
  . "$script"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
