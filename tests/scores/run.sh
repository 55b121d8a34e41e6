#!/usr/bin/env bash
# The same networks and images on every kernel set and every form of binary convolution, bit for bit: those of this CPU, and
# those of aarch64 in an emulator.
#   usage: tests/scores/run.sh BUILD_DIR [ARM64_BUILD_DIR]
# The first set of the first program, scalar, says what is right.
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${1:-build/release} arm64=${2:-}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
passed=0 failed=0 skipped=0

# A small network of every kind of layer, one of the paper's kind, and the shipped ones: file, then its inputs.
images="tests/images/baseline.jpg tests/images/gray.jpg tests/images/cmyk.jpg tests/images/progressive.jpg tests/images/orientation-6.jpg"
photos=$(find ../shared/photos -name '*.jpg' 2>/dev/null | sort | head -3)
networks=()
inputs=()
add() { networks+=("$1") inputs+=("$2"); }
for name in mini slim-basic; do
  golden=tests/golden/$name
  "$build/hwgq" import caffe $golden/model.prototxt $golden/model.caffemodel -o "$folder/$name.hwgq" --quiet >/dev/null || exit 1
  add "$folder/$name.hwgq" "$(find $golden -name 000_data.input.bin | sort | tr '\n' ' ') $images"
done
for model in models/zoo/*.hwgq; do add "$model" "$images $photos"; done
"$build/hwgq" round models/zoo/cifar10.hwgq -o "$folder/round.hwgq" >/dev/null || exit 1 # the first convolution in integers
add "$folder/round.hwgq" "$images $photos"

# scores PROGRAM SET FORM: everything, one network after another.
scores() {
  local i
  for i in "${!networks[@]}"; do
    echo "network $(basename "${networks[$i]}")"
    # shellcheck disable=SC2086
    $1 "$2" "$3" "${networks[$i]}" ${inputs[$i]} || return 1
  done
}

# compare WHO PROGRAM SET FORM: equal to what the first one printed?
compare() {
  local out=$folder/$passed-$failed.txt
  if ! scores "$2" "$3" "$4" >"$out" 2>"$folder/err"; then
    failed=$((failed + 1))
    echo "FAILED $1: $(head -3 "$folder/err")"
  elif [ ! -f "$folder/right" ]; then
    mv "$out" "$folder/right"
    echo "$1: $(grep -c ' score ' "$folder/right") scores and $(grep -c ' layer ' "$folder/right") layers"
  elif cmp -s "$folder/right" "$out"; then
    passed=$((passed + 1))
    echo "$1: the same bits"
  else
    failed=$((failed + 1))
    echo "FAILED $1: other bits than scalar"
    diff "$folder/right" "$out" | head -8
  fi
}

# compare_all WHERE PROGRAM
compare_all() {
  local set form
  while read -r set form; do
    if [ "$set" = missing ]; then
      skipped=$((skipped + 1))
      echo "SKIPPED: kernel set $form, which $1 does not have"
    else
      compare "$1: $set $form" "$2" "$set" "$form"
    fi
  done < <($2)
}

compare_all "this CPU" "$build/tests/scores/scores"
[ -z "$arm64" ] || compare_all "aarch64" "tests/arm64/emulate.sh $arm64/tests/scores/scores"

# A comparison of nothing would pass: there must be scores, and other images must have others.
if [ "$(grep -c ' score ' "$folder/right")" -ge 100 ] && [ "$(grep ' score ' "$folder/right" | sort -u | wc -l)" -ge 100 ]; then
  passed=$((passed + 1))
else
  failed=$((failed + 1))
  echo "FAILED: too few scores, or all the same"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
