#!/usr/bin/env bash
# The PyTorch twin against the engine: tests/torch/run.sh BUILD_DIR (default build/release). Needs Debian's python3-torch,
# which is large and therefore not installed for the tests: without it nothing is tested, and said so.
set -eu
cd "$(dirname "$0")/../.."
build=${1:-build/release}
if ! /usr/bin/python3 -c 'import torch' 2>/dev/null; then
  echo "SKIPPED: the PyTorch twin, models/train/torch: /usr/bin/python3 has no torch (apt-get install python3-torch)"
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
fi
[ -x "$build/hwgq" ] || {
  echo "tests/torch/run.sh: $build/hwgq is missing: run make BUILD=$build first" >&2
  exit 2
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# The build directory remembers the compiler and its flags, sanitizers included.
read -r -a compile <<<"$(cat "$build/flags")"
for program in layers augment; do
  "${compile[@]}" -MF "$folder/$program.d" "tests/torch/$program.c" "$build/libmodels.a" "$build/libhwgq.a" -o "$folder/$program" \
    -ljansson -lxxhash -lm
done
PYTHONDONTWRITEBYTECODE=1 /usr/bin/python3 tests/torch/suite.py "$build" "$folder"
