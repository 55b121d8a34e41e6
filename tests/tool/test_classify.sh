images=tests/images
ok "text" runs 0 classify "$model" $images/baseline.jpg
ok "text: file and size" prints "$images/baseline.jpg (jpeg, 96x64)"
ok "text: five classes" test "$(grep -c ' %  ' "$folder/out")" -eq 5
ok "json" runs 0 classify --json --top-k 3 "$model" $images/baseline.jpg $images/orientation-6.jpg
ok "json: one object per image" json 'length == 2 and .[1].file == "tests/images/orientation-6.jpg"'
ok "json: predictions" json 'all(.[]; (.predictions | length == 3) and .predictions[0].probability >= .predictions[1].probability)'
ok "json: upright size" json 'all(.[]; .image == {"format": "jpeg", "width": 96, "height": 64})'
ok "all classes" runs 0 classify --json --top-k 1000 "$model" $images/odd.jpg
ok "probabilities sum to 1" json '.[0].predictions | length == 10 and ((map(.probability) | add) - 1 | fabs) < 1e-5'

# One JPEG as baseline and as progressive file, and from standard input: the same bits.
"$hwgq" classify --json "$model" $images/baseline.jpg | jq -c .predictions >"$folder/one"
"$hwgq" classify --json "$model" $images/progressive.jpg | jq -c .predictions >"$folder/two"
"$hwgq" classify --json "$model" - <$images/baseline.jpg | jq -c .predictions >"$folder/three"
ok "progressive gives the same bits" cmp -s "$folder/one" "$folder/two"
ok "standard input gives the same bits" cmp -s "$folder/one" "$folder/three"
HWGQ_CPU=scalar "$hwgq" classify --json "$model" $images/baseline.jpg | jq -c .predictions >"$folder/two"
ok "scalar kernels give the same bits" cmp -s "$folder/one" "$folder/two"

ok "PNG" runs 0 classify "$model" $images/palette-trns.png
ok "PNG: file and size" prints "$images/palette-trns.png (png, 96x64)"
ok "WebP" runs 0 classify "$model" $images/exif-6.webp
ok "WebP: file and upright size" prints "$images/exif-6.webp (webp, 96x64)"

# A bad image is reported, and the others are still done.
ok "bad images" runs 1 classify "$model" $images/truncated.jpg $images/no-such.jpg $images/make.c $images/gray.jpg
ok "truncated is named" complains "$images/truncated.jpg: truncated"
ok "missing is named" complains "$images/no-such.jpg: cannot open"
ok "not an image" complains "$images/make.c: no known kind of image"
ok "the good one is done" prints "$images/gray.jpg (jpeg, 96x64)"
ok "bad images as json" runs 1 classify --json "$model" $images/truncated.jpg $images/gray.jpg
ok "bad images as json" json 'length == 2 and (.[0].error | length > 0) and (.[1].predictions | length == 5)'

ok "no model" runs 1 classify "$folder/none.hwgq" $images/gray.jpg
ok "no model: named" complains "none.hwgq"
ok "not a model" runs 1 classify $images/gray.jpg $images/gray.jpg
ok "no image" runs 2 classify "$model"
ok "top-k 0" runs 2 classify --top-k 0 "$model" $images/gray.jpg
