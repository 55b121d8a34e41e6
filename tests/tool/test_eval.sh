# Three classes of the model, by name: labels follow names, not positions.
data=$folder/data
mkdir -p "$data/test/1" "$data/test/4" "$data/test/8" "$data/train/1"
cp tests/images/baseline.jpg tests/images/gray.jpg "$data/test/1"
cp tests/images/orientation-*.jpg "$data/test/4"
cp tests/images/odd.jpg tests/images/one.jpg tests/images/cmyk.jpg "$data/test/8"
cp tests/images/large.jpg "$data/train/1"
tar -cJf "$data.tar.xz" -C "$folder" data

ok "text" runs 0 eval "$model" "$data"
ok "text: images" prints "test, 13 images"
for line in top-1 top-5 loss speed; do ok "text: $line" prints "$line"; done
ok "json" runs 0 eval --json --verbose "$model" "$data" --predictions "$folder/predictions"
ok "json" json '.[0] | .images == 13 and .split == "test" and .top1 >= 0 and .top1 <= .top5 and .loss > 0 and .images_per_s > 0'
ok "json: classes by name" json '.[0].classes | length == 10 and .[1].images == 2 and .[4].images == 8 and .[8].images == 3 and .[0].images == 0'
cp "$folder/out" "$folder/first"

# The predictions file says what classify says.
agree() {
  local file truth predicted probability
  [ "$(wc -l <"$folder/predictions")" -eq 13 ] || return 1
  while IFS=$'\t' read -r file truth predicted probability; do
    [ "$truth" = "$(basename "$(dirname "$file")")" ] || return 1
    "$hwgq" classify --json --top-k 1 "$model" "$data/$file" |
      jq -e --argjson c "$predicted" --argjson p "$probability" \
        '.predictions[0] | .class == $c and .probability == $p' >/dev/null || return 1
  done <"$folder/predictions"
}
ok "eval and classify agree" agree
right=$(awk -F'\t' '$2 == $3' "$folder/predictions" | wc -l)

# What the classes are taken for: the rows add up to the images, the diagonal to those that are right.
ok "confusion" runs 0 eval --json --confusion "$model" "$data"
ok "confusion: images" json '.[0].confusion | length == 10 and all(length == 10) and (.[4] | add == 8) and (.[0] | add == 0)'
ok "confusion: right" json ".[0].confusion | [range(10) as \$i | .[\$i][\$i]] | add == $right"
ok "confusion as text" runs 0 eval --confusion --verbose "$model" "$data"
ok "confusion as text: rows" test "$(grep -c '^ \{5\}[148]  *[0-9]' "$folder/out")" -eq 3
ok "classes as text" prints "taken for"

ok "top-1 is what the predictions add up to" test "$(jq ".top1 * 13 | round" "$folder/first")" -eq "$right"

figures='.[0] | [.images, .top1, .top5, .loss]'
jq -s "$figures" "$folder/first" >"$folder/one"
for how in "$data.tar.xz" "$data --threads 1" "$data --threads 5"; do
  # shellcheck disable=SC2086
  ok "eval $how" runs 0 eval --json "$model" $how
  jq -s "$figures" "$folder/out" >"$folder/two"
  ok "eval $how: the same figures" cmp -s "$folder/one" "$folder/two"
done
ok "reference" runs 0 eval --json --reference "$model" "$data"
ok "reference agrees" json '.[0].reference | .top1_differs == 0 and .over_tolerance == 0 and .largest_difference < .tolerance'
ok "reference as text" runs 0 eval --reference --limit 2 "$model" "$data"
ok "reference as text" prints "differs from the engine's on 0 images"
ok "first-conv" runs 0 eval --json --first-conv "$model" "$data"
ok "first-conv: counts" json '.[0].first_conv | .levels > 1000 and .levels_differ <= 13 and .top1_differs <= 1 and .scores_differ <= 13'
ok "first-conv as text" runs 0 eval --first-conv --limit 2 "$model" "$data"
ok "first-conv as text" prints " that differ: "
# Biases of 0 and 1e-9: in float32 both probabilities are 0.5 and the first class wins, in double precision the second does.
tie() { # OUT.safetensors
  python3 - "$1" <<'EOF'
import json, struct, sys
network = {"name": "tie", "input": [3, 2, 2], "layers": [
    {"name": "fc", "op": "linear", "inputs": ["input"], "out_channels": 2, "bias": True},
    {"name": "prob", "op": "softmax", "inputs": ["fc"]}]}
header = {"__metadata__": {"network": json.dumps(network)},
          "fc.weight": {"dtype": "F32", "shape": [2, 12], "data_offsets": [0, 96]},
          "fc.bias": {"dtype": "F32", "shape": [2], "data_offsets": [96, 104]}}
text = json.dumps(header).encode()
with open(sys.argv[1], "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text + struct.pack("<26f", *[0] * 25, 1e-9))
EOF
}
mkdir -p "$folder/tied/0" "$folder/tied/1" && cp tests/images/one.jpg "$folder/tied/0" && cp tests/images/gray.jpg "$folder/tied/1"
ok "tie" tie "$folder/tie.safetensors"
ok "tie" runs 0 import safetensors "$folder/tie.safetensors" -o "$folder/tie.hwgq" --quiet
ok "tie: without the reference" runs 0 eval "$folder/tie.hwgq" "$folder/tied"
ok "tie: another top-1 is a failure" runs 1 eval --reference "$folder/tie.hwgq" "$folder/tied"
ok "tie: counted" prints "differs from the engine's on 2 images"
ok "tie: nothing over the tolerance" prints "0 images over the tolerance of 0.0001"
ok "tie: another top-1 is a failure" runs 1 eval --reference --json "$folder/tie.hwgq" "$folder/tied"
ok "tie: counted" json '.[0].reference.top1_differs == 2'
ok "first-conv: nothing to compare" runs 1 eval --first-conv "$folder/tie.hwgq" "$folder/tied"
ok "first-conv: nothing to compare" complains "no first convolution"
ok "limit" runs 0 eval --json --verbose --limit 3 "$model" "$data"
ok "limit" json '.[0] | .images == 3 and .classes[1].images == 1 and .classes[4].images == 1 and .classes[8].images == 1'
ok "train split" runs 0 eval --json --split train "$model" "$data"
ok "train split" json '.[0] | .images == 1 and .split == "train"'
# Of test/ and val/ the one that was asked for, and the other one where it is not there; what was taken is said.
mkdir -p "$folder/both/train/1" "$folder/both/test/4" "$folder/both/val/8"
cp tests/images/odd.jpg "$folder/both/train/1" && cp tests/images/odd.jpg tests/images/gray.jpg "$folder/both/test/4"
cp tests/images/cmyk.jpg tests/images/gray.jpg tests/images/one.jpg "$folder/both/val/8"
tar -cf "$folder/both.tar" -C "$folder" both
for source in "$folder/both" "$folder/both.tar"; do
  ok "val beside test" runs 0 eval --json --verbose --split val "$model" "$source"
  ok "val beside test" json '.[0] | .split == "val" and .images == 3 and .classes[8].images == 3'
  ok "test beside val" runs 0 eval --json --verbose "$model" "$source"
  ok "test beside val" json '.[0] | .split == "test" and .images == 2 and .classes[4].images == 2'
done
ok "val without a val/" runs 0 eval --json --split val "$model" "$data"
ok "val without a val/" json '.[0] | .split == "test" and .images == 13'
rm -r "$folder/both/test"
ok "test without a test/" runs 0 eval "$model" "$folder/both"
ok "test without a test/" prints "both, val, 3 images"

mkdir -p "$folder/other/zebra" && cp tests/images/one.jpg "$folder/other/zebra"
ok "unknown class" runs 1 eval "$model" "$folder/other"
ok "unknown class is named" complains "'zebra'"

# As many classes as the model has, one of them under another name: positions would shift those between.
for class in 0 1 2 3 4 5 6 7 8 9; do
  mkdir -p "$folder/renamed/$class" "$folder/letters/class-$class"
  cp tests/images/odd.jpg "$folder/renamed/$class" && cp tests/images/odd.jpg "$folder/letters/class-$class"
done
mv "$folder/renamed/2" "$folder/renamed/zwei"
ok "renamed class" runs 1 eval "$model" "$folder/renamed"
ok "renamed class is named" complains "does not know: 'zwei'; labels without a class there: '2': "
ok "renamed class: what to do" complains "name them as the model does"
mv "$folder/renamed/zwei" "$folder/renamed/2"
ok "all names known" runs 0 eval --json "$model" "$folder/renamed"
cp "$folder/out" "$folder/one"
ok "no name known: by position" runs 0 eval --json "$model" "$folder/letters"
ok "no name known: by position" test "$(jq .top1 "$folder/one")" = "$(jq .top1 "$folder/out")"

cp tests/images/truncated.jpg "$data/test/4/bad.jpg"
ok "damaged image" runs 1 eval "$model" "$data"
ok "damaged image is named" complains "test/4/bad.jpg"
ok "missing data" runs 1 eval "$model" "$folder/nowhere"
ok "missing data is named" complains "nowhere"
ok "predictions that cannot be written" runs 1 eval "$model" "$data.tar.xz" --predictions "$folder/no/file"
ok "wrong split" runs 2 eval "$model" "$data" --split both
ok "no data" runs 2 eval "$model"
