# hwgq train beside the plain recipe: every row of the paper's table, averages, teachers, beginnings, presets, the report, and
# the script that runs the table. Needs $few, $small, digest, agrees and refused of test_train.sh.
tiny=(lenet "$few" --width 0.1 --batch 5 --threads 2 --pad 1 --epochs 2)
trained() { # NAME ARGUMENT...: $folder/NAME.hwgq and its log
  local name=$1
  shift
  runs 0 train "${tiny[@]}" -o "$folder/$name.hwgq" --log "$folder/$name.log" "$@"
}
row=0
each_way() { # ARGUMENT...: it trains, and the engine, the reference and the trainer agree on the model
  row=$((row + 1))
  trained "way$row" "$@" && agrees "$folder/way$row.hwgq" "$folder/way$row.log" && runs 0 verify "$folder/way$row.hwgq" tests/images/gray.jpg
}
description() { # MODEL: as its file has it
  python3 -c 'import json, struct, sys
file = open(sys.argv[1], "rb")
print(json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))["__metadata__"]["network"])' "$1"
}
levels_are() { # MODEL COUNT FIRST-CENTER FIRST-THRESHOLD
  description "$1" | jq -e "[.layers[] | select(.op == \"quantize\")] | length > 0 and all(.[]; (.centers | length) == $2 and
    ((.centers[0] - $3) | fabs) < 1e-4 and ((.thresholds[0] - $4) | fabs) < 1e-4)" >/dev/null
}
for way in "--weights float --levels relu" "--levels relu" "--levels sign" "--weights float --levels sign" "--weights float" \
  "--backward vanilla" "--backward log-tailed" "--bits 1" "--level-count 2" "--level-count 2 --levels free" "--levels free" "--bits 4" \
  "--zero half" "--zero half --step 0.5 --bits 3" "--affine yes"; do
  # shellcheck disable=SC2086
  ok "train $way" each_way $way
done
ok "levels: 2 non-uniform are the paper's" levels_are "$folder/way10.hwgq" 2 0.453 0
ok "levels: 2 uniform" levels_are "$folder/way9.hwgq" 2 "$("$hwgq" quantizer --levels 2 --json | jq '.centers[0]')" 0
ok "levels: half-step zero has its own step" levels_are "$folder/way13.hwgq" 3 0.6508 0.3254
ok "levels: a step that was given" levels_are "$folder/way14.hwgq" 7 0.5 0.25
ok "float: no layer is binary" jq -en "$(description "$folder/way1.hwgq") | all(.layers[]; .binary != true and .op != \"quantize\")"
ok "float weights: larger than binary ones" test "$(stat -c %s "$folder/way1.hwgq")" -gt $((4 * $(stat -c %s "$folder/way2.hwgq")))
digest_of() { "$hwgq" inspect --json "$1" | jq -er .digest; } # of the weights: what the file says about its making is not in it
for backward in clipped vanilla; do ok "$backward" trained "$backward" --backward "$backward"; done
ok "the same way, the same digest" test "$(digest_of "$folder/vanilla.hwgq")" = "$(digest_of "$folder/way6.hwgq")"
ok "vanilla and clipped differ" test "$(digest_of "$folder/vanilla.hwgq")" != "$(digest_of "$folder/clipped.hwgq")"
ok "log-tailed and clipped differ" test "$(digest_of "$folder/way7.hwgq")" != "$(digest_of "$folder/clipped.hwgq")"

# Networks with branches.
for network in resnet-18-small resnet-50; do
  ok "train $network" runs 0 train "$network" "$few" --input 3x32x32 --width 0.04 --batch 5 --threads 2 --epochs 1 -o "$folder/res.hwgq" --log "$folder/res.log"
  ok "$network: eval agrees" agrees "$folder/res.hwgq" "$folder/res.log"
  ok "$network: verify" runs 0 verify "$folder/res.hwgq" tests/images/gray.jpg
done

# A teacher, a beginning, an average, everything that is done to images; and a longer run of the same, stopped and resumed.
full=(--teacher "$folder/way1.hwgq" --distill-weight 0.4 --distill-temperature 3 --initial "$folder/way1.hwgq" --average 0.8
  --statistics-batches 2 --label-smoothing 0.1 --schedule cosine --crop 0.2 --aspect 0.1 --blur 1 --soften 1 --brightness 0.2
  --contrast 0.2 --saturation 0.2 --cutout 3 --backward log-tailed)
ok "everything at once" trained full "${full[@]}"
ok "everything at once: says where it begins" prints "begins with 7 layers of "
ok "everything at once: averaged" prints ", weights in training "
first=$(digest)
ok "everything at once: eval agrees with the average" agrees "$folder/full.hwgq" "$folder/full.log"
ok "everything at once: one thread" trained one "${full[@]}" --threads 1
ok "everything at once: the same weights" test "$(digest)" = "$first"
ok "everything at once: exported again" runs 0 train --resume "$folder/full.hwgq.checkpoint" --export-only -o "$folder/again.hwgq"
ok "everything at once: exported again, the same" cmp -s "$folder/full.hwgq" "$folder/again.hwgq"
ok "everything at once: of another average" runs 0 train --resume "$folder/full.hwgq.checkpoint" --export-only -o "$folder/other.hwgq" --average 0
ok "everything at once: of another average" runs 0 inspect --json "$folder/other.hwgq"
ok "everything at once: of another average, never tested" json '.[0].provenance | has("test_accuracy") | not'
stopped() { # the model of a stopped run is of its average, and has an accuracy only when it stopped between epochs
  runs 0 train --resume "$folder/e.hwgq.checkpoint" --export-only -o "$folder/part.hwgq" && python3 - "$folder/e.hwgq.checkpoint" >"$folder/state" <<'END' &&
import json, struct, sys
file = open(sys.argv[1], "rb")
print(json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))["__metadata__"]["state"])
END
    jq -en --slurpfile state "$folder/state" --argjson model "$("$hwgq" inspect --json "$folder/part.hwgq")" \
      '$state[0].average_measured and ($model.provenance | has("test_accuracy")) == ($state[0].step == 0)' >/dev/null
}
long=("${tiny[@]}" "${full[@]}" --epochs 40)
ok "everything at once: longer" trained long "${full[@]}" --epochs 40
first=$(digest)
ok "everything at once: stopped" interrupt INT
ok "everything at once: stopped, exported" stopped
ok "everything at once: resumed" runs 0 train --resume "$folder/e.hwgq.checkpoint" -o "$folder/e.hwgq"
ok "everything at once: resumed, the same weights" test "$(digest)" = "$first"
names_are() { "$hwgq" inspect --json "$1" | jq -e '.provenance.recipe | .data == "few" and .teacher == "way1.hwgq" and .initial == "way1.hwgq"' >/dev/null; }
no_folders() { "$hwgq" inspect --json "$1" | jq -e .provenance >"$folder/out" && ! grep -qF "$folder/" "$folder/out"; }
ok "provenance: files by their names" names_are "$folder/full.hwgq"
ok "provenance: no folders" no_folders "$folder/full.hwgq"
ok "begins with a checkpoint" trained staged --initial "$folder/full.hwgq.checkpoint" --average-epochs 1
ok "begins with a checkpoint: said" prints "begins with 7 layers of "
ok "smaller images first" runs 0 train resnet-18-small "$few" --input 3x24x24 --width 0.04 --batch 5 --threads 2 --epochs 1 -o "$folder/small.hwgq"
for beginning in small.hwgq small.hwgq.checkpoint; do
  ok "smaller images first: then others" runs 0 train resnet-18-small "$few" --width 0.04 --batch 5 --threads 2 --epochs 1 -o "$folder/large.hwgq" --initial "$folder/$beginning"
  ok "smaller images first: every layer is taken" prints "begins with 59 layers of "
done
ok "smaller images first: a linear classifier begins anew" runs 0 train vgg-small "$few" "${small[@]}" --input 3x24x24 --epochs 1 -o "$folder/small.hwgq" --initial "$folder/a.hwgq"
ok "smaller images first: a linear classifier begins anew" prints "begins with 12 layers of "

ok "preset" trained preset --preset paper-cifar --epochs 1 --batch 4
ok "preset: its options, and what changes them" jq -se '.[-1].epoch == 1 and (.[-1].lr < 0.01)' "$folder/preset.log" >/dev/null
ok "preset: kept in the recipe" bash -c '"$1" inspect --json "$2" | grep -qF "\"weight-decay\":\"0.0005\""' _ "$hwgq" "$folder/preset.hwgq"
ok "preset: shipped" trained preset --preset shipped --epochs 1
ok "preset: shipped: its network" bash -c '"$1" inspect --json "$2" | grep -qF "\"zero\":\"half\"" && "$1" inspect "$2" | grep -q scale' _ "$hwgq" "$folder/preset.hwgq"
ok "mean in whole numbers" bash -c '"$1" inspect --json "$2" | jq -e ".preprocess.mean | all(. == floor and . > 0)" >/dev/null' _ "$hwgq" "$folder/preset.hwgq"

# The report has the log's figures.
report_is() { # MODEL-LOG EPOCHS
  sed -n 's/.*id="data">\(.*\)<\/script>.*/\1/p' "$folder/report/report.html" >"$folder/report.json"
  jq -e --slurpfile log "$1" ".history == \$log and (.history | length) == $2 and (.activations | length) == 3 and
    all(.activations[]; .count == (.levels | add) and .count == (.bins | add) + .below + .above)" "$folder/report.json" >/dev/null
}
in_page() { grep -qF -- "$1" "$folder/report/report.html"; }
# Well-formed: what is left without the HTML head's and the data's texts is XML.
well_formed() { sed -e 's/<!DOCTYPE html>//' -e 's/<meta \([^>]*\)>/<meta \1\/>/' "$folder/report/report.html" | python3 -c 'import sys, xml.dom.minidom as m; m.parseString(sys.stdin.buffer.read())'; }
# Labels of a report of 16 levels, read at 6.9 units a character: none is cut off at the left, those of levels stand apart, the
# first and the last level have one; and the epochs of the curves are 0 and 1.
labels_are() { sed -n '/<svg/,/<\/svg>/p' "$1" | python3 -c '
import sys, xml.dom.minidom
levels = None
for chart in xml.dom.minidom.parseString("<all>" + sys.stdin.read() + "</all>").getElementsByTagName("svg"):
    texts = [(t.getAttribute("text-anchor"), float(t.getAttribute("x")), float(t.getAttribute("y")), t.firstChild.data) for t in
             chart.getElementsByTagName("text")]
    assert all(x >= 6.9 * len(text) for anchor, x, _, text in texts if anchor == "end"), texts
    below = [(x - 3.45 * len(text), x + 3.45 * len(text), text) for anchor, x, y, text in texts if anchor == "middle" and y > 220]
    assert all(before[1] < after[0] for before, after in zip(below, below[1:])), below
    title = chart.getAttribute("aria-label")
    names = [text for *_, text in below]
    if " epoch" in title or title.startswith("Speed"):
        assert names == ["0", "1"], names
    elif title.startswith("Share"):
        levels = names
assert levels[0] == "0" and levels[-1] == "3.21" and 5 < len(levels) < 16, levels'; }
ok "report" trained reported --report "$folder/report" --average 0.5
ok "report: the log's figures" report_is "$folder/reported.log" 2
ok "report: well-formed" well_formed
ok "report: curves well-formed" python3 -c 'import sys, xml.dom.minidom as m; m.parse(sys.argv[1])' "$folder/report/curves.svg"
ok "report: the columns of an average" in_page '<th class="n">test %</th><th class="n">test, weights in training %</th>'
ok "report: a short run took more than no minutes" bash -c '! grep -q " 0 minutes" "$1"' _ "$folder/report/report.html"
ok "report: goes on with the run" runs 0 train --resume "$folder/reported.hwgq.checkpoint" --epochs 3 --report "$folder/report" --log "$folder/reported.log"
ok "report: the log's figures" report_is "$folder/reported.log" 3
rm -r "$folder/report"
mkdir -p "$folder/no-curves/curves.svg"
ok "report: curves that cannot be written are told first" runs 1 train --resume "$folder/reported.hwgq.checkpoint" --epochs 9 --report "$folder/no-curves"
ok "report: which" complains "curves.svg"
ok "report: of a run that is complete" runs 0 train --resume "$folder/reported.hwgq.checkpoint" --report "$folder/report"
ok "report: the log's figures" report_is "$folder/reported.log" 3
ok "report: a curve of three points" grep -qE '<path class="curve s1" d="M[0-9.]+ [0-9.]+ L[0-9.]+ [0-9.]+ L[0-9.]+ [0-9.]+"/>' "$folder/report/report.html"
ok "report: in folders that are made" runs 0 train --resume "$folder/reported.hwgq.checkpoint" --report "$folder/new/deep/"
ok "report: is there" test -s "$folder/new/deep/report.html" -a -s "$folder/new/deep/curves.svg"
ok "report: one epoch, 16 levels" trained reported --report "$folder/report" --bits 4 --levels free --epochs 1
ok "report: its labels" labels_are "$folder/report/report.html"
ok "report: no column of what is not there" bash -c '! grep -q "weights in training" "$1"' _ "$folder/report/report.html"
ok "report: not averaged, sign" trained reported --report "$folder/report" --levels sign --no-test
ok "report: well-formed" well_formed

refused_here() { # CODE TEXT ARGUMENT...
  local code=$1 text=$2
  shift 2
  refused "$code" "$text" "${tiny[@]}" -o "$folder/x" "$@"
}
ok "refused: bits and levels" refused_here 2 "one of --bits and --level-count" --bits 2 --level-count 3
ok "refused: step of free levels" refused_here 2 "--step goes with" --levels free --step 0.5
for option in "--bits 2" "--level-count 2" "--zero half" "--backward vanilla"; do
  for levels in sign relu; do
    # shellcheck disable=SC2086
    ok "refused: $option of $levels" refused_here 2 "${option% *} goes with --levels uniform or free, not with $levels" --levels $levels $option
  done
done
ok "refused: distillation without a teacher" refused_here 2 "--teacher" --distill-weight 0.5
ok "refused: preset" refused_here 2 'no preset "best"' --preset best
ok "refused: two averages" refused_here 1 "not both" --average 0.9 --average-epochs 1
ok "refused: no such teacher" refused_here 1 nobody --teacher "$folder/nobody"
ok "refused: a teacher for other images" refused 1 "the teacher takes images" vgg-small "$few" "${small[@]}" -o "$folder/x" --teacher "$folder/way1.hwgq"
ok "refused: a beginning of another width" refused_here 1 "same network and width" --width 0.2 --initial "$folder/way1.hwgq"
ok "refused: a beginning that is neither" refused_here 1 image.checkpoint --initial "$folder/image.checkpoint"
# A damaged checkpoint is told as such, not as a file that is no model.
LC_ALL=C sed 's/\\"step\\":0,/\\"step\\":-,/' "$folder/full.hwgq.checkpoint" >"$folder/spoiled"
ok "refused: a beginning of a spoiled state" refused_here 1 "checkpoint $folder/spoiled, state" --initial "$folder/spoiled"
rm -rf "$folder"/x*
ok "refused: a report in a file" refused_here 1 "cannot make the folder $folder/full.log/no/r" --report "$folder/full.log/no/r"
ok "refused: a report where a file is" refused_here 1 "cannot write $folder/full.log/report.html" --report "$folder/full.log"
mkdir -p "$folder/taken/report.html"
ok "refused: a report that is a folder" refused_here 1 "cannot write $folder/taken/report.html" --report "$folder/taken"
ok "refused: a report, before training" test -z "$(ls "$folder"/x* 2>/dev/null)" -a ! -s "$folder/out"
ok "refused: a report without training" refused 2 "--report needs" --resume "$folder/full.hwgq.checkpoint" --export-only -o "$folder/x" --report "$folder/r"

# The table: two rows, in two goes.
table() { models/train/ablation.sh lenet "$few" "$folder/table" --hwgq "$hwgq" --seeds "1 2" --rows "$1" "${@:2}" >"$folder/out" 2>"$folder/err"; }
shared=(-- --width 0.1 --batch 5 --threads 2 --epochs 2)
ok "table: a row" table "bw-sign" "${shared[@]}"
ok "table: its models" test -s "$folder/table/bw-sign-1.hwgq" -a -s "$folder/table/bw-sign-2.hwgq"
touch "$folder/then"
rm "$folder/table/bw-sign-2.hwgq" # as if it had been interrupted
ok "table: goes on" table "bw-sign hwgq-clipped" "${shared[@]}"
ok "table: skips what is done" test "$folder/table/bw-sign-1.hwgq" -ot "$folder/then"
ok "table: finishes what is not" test -s "$folder/table/bw-sign-2.hwgq"
ok "table: two seeds a row" test "$(grep -cE '^\| BW .* [0-9.]+ \| +[0-9.]+ - +[0-9.]+ \| +2 \|$' "$folder/out")" -eq 2
ok "table: printed alone" table "bw-sign hwgq-clipped" --table
ok "table: another recipe is refused" bash -c '! "$@"' _ models/train/ablation.sh lenet "$few" "$folder/table" --hwgq "$hwgq" --rows bw-sign -- --epochs 9
ok "table: a row that is not there" bash -c '! "$@" 2>/dev/null' _ models/train/ablation.sh lenet "$few" "$folder/table3" --hwgq "$hwgq" --rows "bw-sig bw-sign"
ok "table: a row that is not there: nothing begins" test ! -e "$folder/table3"
mkdir "$folder/empty"
failing() { ! models/train/ablation.sh lenet "$folder/empty" "$folder/table4" --hwgq "$hwgq" --rows bw-sign --seeds 1 >"$folder/out" 2>"$folder/err"; }
ok "table: a row that fails" failing
ok "table: a row that fails is told" complains "bw-sign with seed 1 failed"
ok "table: leaves nothing behind" rmdir "$folder/table4"
