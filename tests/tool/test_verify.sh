images=tests/images
ok "verify" runs 0 verify "$model" $images/baseline.jpg $images/gray.jpg
ok "verify: passes" prints "$images/baseline.jpg: pass"
ok "verify: counts" prints "2 of 2 images passed"
ok "verify: float error" prints "largest float error"
ok "verify: threshold" prints "nearest: "
ok "verify: json" runs 0 verify --json "$model" $images/baseline.jpg
ok "verify: json" json '.[0] | .result.passed and (.result.executors | length > 0) and .result.nearest.distance > 0'
ok "verify: all sets" json '.[0].result.executors | map(.name) | index("scalar") == 0'
ok "verify: same scores" json '.[0].result.executors | all(.same_scores and .same_when_serving and .first_failed == null)'
ok "verify: one set" runs 0 verify --json --cpu scalar "$model" $images/baseline.jpg
ok "verify: one set" json '.[0].result.executors | map(.name) == ["scalar"]'
ok "verify: table" runs 0 verify --layers "$model" $images/baseline.jpg
ok "verify: table" prints "u1_q2 "
ok "verify: nothing is exact" runs 1 verify --tolerance 0 "$model" $images/baseline.jpg
ok "verify: nothing is exact" prints "FAIL at layer 'stem_"
ok "verify: help" runs 0 verify --help
ok "verify: help says what fails" prints "counts as a failure"
ok "verify: unknown set" runs 1 verify --cpu mmx "$model" $images/baseline.jpg
ok "verify: no image" runs 2 verify "$model"
ok "verify: bad image" runs 1 verify "$model" $images/truncated.jpg $images/gray.jpg
ok "verify: bad image" complains "truncated.jpg"
ok "verify: bad image" prints "1 of 2 images passed"

ok "golden" runs 0 verify --golden tests/golden/mini
ok "golden: all inputs, both weight files" prints "6 of 6 recordings passed"
ok "golden: one weight file" runs 0 verify --golden tests/golden/mini --model tests/golden/mini/model_bw.caffemodel
ok "golden: one weight file" prints "3 of 3 recordings passed"
ok "golden: json" runs 0 verify --json --golden tests/golden/slim-basic
ok "golden: json" json 'length == 1 and .[0].passed and .[0].recording.executors[0].name == "reference"'
ok "golden: weights of another network" runs 1 verify --golden tests/golden/mini --model tests/golden/slim-basic/model.caffemodel
ok "golden: no such folder" runs 1 verify --golden "$folder/none"
ok "golden: operands" runs 2 verify --golden tests/golden/mini "$model"
ok "golden: --model alone" runs 2 verify --model x.caffemodel "$model" $images/gray.jpg

# One code of the third input's recording is changed: 4 bytes at value 100 become 0x40000000, the float 2.
cp -r tests/golden/mini "$folder/damaged"
codes=$folder/damaged/input3/009_u1_q2.codes.bin
before=$(od -An -tf4 -j400 -N4 "$codes" | tr -d ' ')
if [ "$before" = 2 ]; then new='\0\0\0\0'; else new='\0\0\0\100'; fi
printf "$new" | dd of="$codes" bs=1 seek=400 conv=notrunc status=none
ok "damaged code" runs 1 verify --golden "$folder/damaged"
ok "damaged code: the layer is named" prints "FAIL at layer 'u1_q2' (quantize): 1 of 2916 codes differ, 1 of them wrong; first at channel 1, y 2, x 1"
ok "damaged code: others pass" prints "4 of 6 recordings passed"
rm "$folder/damaged/input2/022_u2_sum.out.bin"
ok "missing blob" runs 1 verify --golden "$folder/damaged"
ok "missing blob is named" complains "022_u2_sum.out.bin"
