# Training from the command line, on a handful of images: what is written, interruption and resumption, refusals.
set_of_images() { # FOLDER: two classes, told apart by color
  local split
  for split in train test; do
    mkdir -p "$1/$split/color" "$1/$split/gray"
    cp tests/images/baseline.jpg tests/images/orientation-[1-8].jpg "$1/$split/color"
    cp tests/images/gray.jpg "$1/$split/gray"
    for copy in 2 3 4 5 6; do cp tests/images/gray.jpg "$1/$split/gray/$copy.jpg"; done
  done
}
few=$folder/few
set_of_images "$few"
# Seconds differ between runs; the digest is of the weights.
digest() { grep -o 'xxh3:[0-9a-f]*' "$folder/out"; }
small=(--width 0.04 --batch 5 --threads 2 --pad 1)

ok "train" runs 0 train vgg-small "$few" -o "$folder/a.hwgq" "${small[@]}" --epochs 3 --log "$folder/a.log"
ok "train: counts" prints "15 images to train on, 15 to test, 2 classes"
ok "train: a line an epoch" prints "epoch 3/3: loss "
first=$(digest)
ok "train: log" jq -s -e 'length == 3 and ([.[].epoch] == [1, 2, 3]) and all(.[]; .loss > 0 and .train_accuracy <= 1 and
  .test_accuracy <= 1 and .images_per_second > 0 and .lr > 0 and .seconds > 0)' "$folder/a.log" >/dev/null
ok "train: the model works" runs 0 classify --json "$folder/a.hwgq" tests/images/gray.jpg
ok "train: labels are the folders" json '[.[0].predictions[].label] | sort == ["color", "gray"]'
ok "train: eval agrees with the trainer" runs 0 eval --json "$folder/a.hwgq" "$few"
top1=$(jq .top1 "$folder/out")
ok "train: eval agrees with the log" jq -se --argjson top1 "$top1" '(.[-1].test_accuracy - $top1) | fabs < 1e-5' "$folder/a.log" >/dev/null
ok "train: and with the file" runs 0 inspect --json "$folder/a.hwgq"
ok "train: and with the file" json ".[0].provenance.test_accuracy - $top1 | fabs < 1e-5"

ok "train: one thread" runs 0 train vgg-small "$few" -o "$folder/b.hwgq" "${small[@]}" --epochs=3 --threads=1
ok "train: the same weights" test "$(digest)" = "$first"
ok "train: another seed" runs 0 train vgg-small "$few" -o "$folder/b.hwgq" "${small[@]}" --epochs 3 --seed 2
ok "train: other weights" test "$(digest)" != "$first"
ok "export" runs 0 train --resume "$folder/a.hwgq.checkpoint" --export-only -o "$folder/c.hwgq"
ok "export: the same weights" test "$(digest)" = "$first"
ok "export: the same file" cmp -s "$folder/a.hwgq" "$folder/c.hwgq"

# The precision that was chosen is in the recipe, and a resumed run keeps it; a checkpoint without one is of float32.
ok "float32" runs 0 train vgg-small "$few" -o "$folder/p.hwgq" "${small[@]}" --epochs 2 --precision float32
ok "float32: is said" prints ", float32, 2 threads"
ok "float32: in the recipe" grep -aqF 'precision\":\"float32' "$folder/p.hwgq.checkpoint"
ok "float32: resumed" runs 0 train --resume "$folder/p.hwgq.checkpoint" --epochs 3
ok "float32: kept" prints ", float32, 2 threads"
# What was called bf16 before is mixed. (The recipe's text keeps its length.)
sed 's/precision\\":\\"float32\\"/precision\\":\\"bf16\\"   /' "$folder/p.hwgq.checkpoint" >"$folder/old.checkpoint"
ok "bf16: in the checkpoint" grep -aqF 'precision\":\"bf16' "$folder/old.checkpoint"
ok "bf16: is read" runs 0 train --resume "$folder/old.checkpoint" --export-only -o "$folder/old.hwgq"
if grep -qw avx512_vnni /proc/cpuinfo; then
  ok "auto is mixed" runs 0 train vgg-small "$few" -o "$folder/p.hwgq" "${small[@]}" --epochs 2
  ok "auto is mixed" prints ", mixed, 2 threads"
  ok "mixed: resumed" runs 0 train --resume "$folder/p.hwgq.checkpoint" --epochs 3
  ok "mixed: kept" prints ", mixed, 2 threads"
else
  ok "no mixed" runs 1 train vgg-small "$few" -o "$folder/p.hwgq" "${small[@]}" --epochs 1 --precision mixed
  ok "no mixed: what to do" complains "use --precision float32"
fi
ok "no such precision" runs 2 train vgg-small "$few" -o "$folder/p.hwgq" --precision half
ok "no such precision" complains 'precision cannot be "half"'

# A long run, interrupted after its first checkpoint, continues to where the uninterrupted one went.
long=(vgg-small "$few" "${small[@]}" --epochs 50)
ok "long run" runs 0 train "${long[@]}" -o "$folder/d.hwgq"
first=$(digest)
# On a busy machine training may end before the signal arrives: then once more.
interrupt() { # SIGNAL
  local run status
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    rm -f "$folder"/e.hwgq*
    "$hwgq" train "${long[@]}" -o "$folder/e.hwgq" >"$folder/out" 2>"$folder/err" &
    run=$!
    until [ -e "$folder/e.hwgq.checkpoint" ] || ! kill -0 "$run" 2>/dev/null; do sleep 0.01; done
    kill "-$1" "$run" 2>/dev/null
    wait "$run"
    status=$?
    [ "$status" -eq 0 ] || break
  done
  [ "$status" -eq 130 ] || { echo "  exit code $status, not 130"; return 1; }
}
for signal in INT TERM; do
  ok "interrupted by $signal" interrupt "$signal"
  ok "interrupted: says how to go on" complains "hwgq train --resume $folder/e.hwgq.checkpoint -o $folder/e.hwgq"
  ok "interrupted: no model" test ! -e "$folder/e.hwgq"
  ok "resumed" runs 0 train --resume "$folder/e.hwgq.checkpoint" -o "$folder/e.hwgq"
  ok "resumed: the same weights" test "$(digest)" = "$first"
done
cp "$folder/e.hwgq.checkpoint" "$folder/earlier"
ok "begun again" runs 0 train "${long[@]}" -o "$folder/e.hwgq" --epochs 1 --limit 20
ok "begun again: the earlier checkpoint is kept" cmp -s "$folder/earlier" "$folder/e.hwgq.checkpoint.old"
ok "begun again: and told" grep -qF "hwgq train --resume $folder/e.hwgq.checkpoint.old" "$folder/out"

# Two runs would take turns in replacing one checkpoint.
other_run() { # ARGUMENT...: while the lock of a run that has not ended is held
  flock "$folder/e.hwgq.checkpoint.lock" "$hwgq" train "$@" >"$folder/out" 2>"$folder/err"
  [ $? -eq 1 ] && complains "another hwgq train is writing $folder/e.hwgq.checkpoint"
}
cp "$folder/e.hwgq.checkpoint" "$folder/earlier"
ok "another run: refused" other_run "${long[@]}" -o "$folder/e.hwgq"
ok "another run: resuming is refused" other_run --resume "$folder/e.hwgq.checkpoint" --epochs 99
ok "another run: keeps its checkpoint" cmp -s "$folder/earlier" "$folder/e.hwgq.checkpoint"
ok "another run: after one that was killed" runs 0 train --resume "$folder/e.hwgq.checkpoint" --epochs 2
ok "another run: no lock is left" test ! -e "$folder/e.hwgq.checkpoint.lock"

printf 'dog\r\ncat\n' >"$folder/names"
ok "labels" runs 0 train vgg-small "$few" -o "$folder/f.hwgq" "${small[@]}" --epochs 1 --labels "$folder/names" --optimizer sgd --lr 0.01 \
  --bits 3 --levels free --schedule constant --no-test --zoom 0.2 --mean 120,110,100 --scale 1/128
ok "labels" runs 0 classify --json "$folder/f.hwgq" tests/images/gray.jpg
ok "labels" json '[.[0].predictions[].label] | sort == ["cat", "dog"]'
ok "sign" runs 0 train vgg-small "$few" -o "$folder/s.hwgq" "${small[@]}" --epochs 1 --levels sign --classifier-rate 1
ok "sign: eval agrees" runs 0 eval --reference "$folder/s.hwgq" "$few"
ok "recipe" runs 0 inspect "$folder/f.hwgq"
ok "recipe" prints '"lr"'

# The last line of a log and `hwgq eval` say the same about the test images.
agrees() { # MODEL LOG
  runs 0 eval --json "$1" "$few" &&
    jq -e --slurpfile log "$2" '($log[-1].test_accuracy - .top1) | fabs < 1e-5' "$folder/out" >/dev/null
}
mean_of() { "$hwgq" inspect --json "$1" | jq '.preprocess.mean[0]'; }
ok "gray" runs 0 train lenet "$few" -o "$folder/g.hwgq" --width 0.2 --epochs 1 --batch 4 --limit 8
ok "gray: limit" prints "8 images to train on, 8 to test"
ok "inverted" runs 0 train lenet "$few" -o "$folder/i.hwgq" --width 0.2 --epochs 1 --batch 4 --limit 8 --invert yes
ok "inverted: the mean as well" jq -en "($(mean_of "$folder/g.hwgq") + $(mean_of "$folder/i.hwgq") - 255) | fabs < 0.001"
for mean in 60 190; do # it is given: training and eval must see the same pixels, not pixels that look alike
  ok "inverted, mean $mean" runs 0 train vgg-small "$few" -o "$folder/i.hwgq" --width 0.04 --batch 5 --threads 2 --pad 0 \
    --mirror no --epochs 12 --invert yes --mean "$mean" --log "$folder/i.log"
  ok "inverted, mean $mean: eval agrees with the trainer" agrees "$folder/i.hwgq" "$folder/i.log"
done

# Without -o there is a checkpoint only, and --resume goes on in it.
ok "checkpoint only" runs 0 train vgg-small "$few" "${small[@]}" --epochs 1 --checkpoint "$folder/k"
ok "resumed without -o" runs 0 train --resume "$folder/k" --epochs 2
ok "resumed without -o: goes on" prints "epoch 2/2: loss "
ok "resumed without -o: says that there is no model" complains "no model was written"
cp "$folder/k" "$folder/n.hwgq.checkpoint"
ok "resumed from n.hwgq.checkpoint" runs 0 train --resume "$folder/n.hwgq.checkpoint"
ok "resumed from n.hwgq.checkpoint: writes n.hwgq" test -s "$folder/n.hwgq"
ok "resumed from n.hwgq.checkpoint: was complete" prints "the run is complete, of 2 epochs"
rm "$folder/n.hwgq"
ok "exported from n.hwgq.checkpoint" runs 0 train --resume "$folder/n.hwgq.checkpoint" --export-only
ok "exported from n.hwgq.checkpoint: writes n.hwgq" test -s "$folder/n.hwgq"
mkdir "$folder/a folder"
cp -r "$few" "$folder/a folder/few"
elsewhere() { (cd "$folder/a folder" && runs 0 train vgg-small few "${small[@]}" --epochs 1 --checkpoint "it's k"); }
ok "a relative path" elsewhere
ok "a relative path: what can be pasted" complains "--resume 'it'\\''s k' --export-only"
mv "$folder/a folder/few" "$folder/a folder/moved"
ok "a relative path: moved" runs 1 train --resume "$folder/a folder/it's k" --epochs 2
ok "a relative path: moved, what to do" complains "(NETWORK DATA beside --resume names other data)"
mv "$folder/a folder/moved" "$folder/a folder/few"
ok "a relative path: from another folder" runs 0 train --resume "$folder/a folder/it's k" --epochs 2
cp "$folder/k" "$folder/between"
ok "another batch size between epochs" runs 0 train --resume "$folder/between" --epochs 3 --batch 3
LC_ALL=C sed 's/\\"step\\":0,/\\"step\\":1,/' "$folder/k" >"$folder/within"
ok "log that is full" runs 0 train vgg-small "$few" "${small[@]}" --epochs 1 --checkpoint "$folder/l" --log /dev/full
ok "log that is full: told" complains "/dev/full (No space left on device): training goes on"

# refused CODE TEXT ARGUMENT...
refused() {
  local code=$1 text=$2
  shift 2
  runs "$code" train "$@" && complains "$text"
}
printf 'one\n' >"$folder/name"
cp tests/images/gray.jpg "$folder/image.checkpoint"
head -c 5000 "$folder/a.hwgq.checkpoint" >"$folder/cut.checkpoint"
ok "refused: nothing" refused 2 "give a network and data"
ok "refused: no output" refused 2 "-o OUT.hwgq" lenet "$few"
ok "refused: network" refused 1 'no network "vgg-large"' vgg-large "$few" -o "$folder/x"
ok "refused: data" refused 1 nowhere lenet "$folder/nowhere" -o "$folder/x"
ok "refused: option" refused 2 "--widht" lenet "$few" --widht 1
ok "refused: value" refused 2 'epochs cannot be "many"' lenet "$few" -o "$folder/x" --epochs many
ok "refused: flag with value" refused 2 "takes no value" lenet "$few" --no-test=1
ok "refused: missing value" refused 2 "--epochs needs a value" lenet "$few" --epochs
ok "refused: third operand" refused 2 "one argument too many" lenet "$few" more
ok "refused: value out of range" refused 2 'batch cannot be "0": give a whole number from 1 to 65536' lenet "$few" -o "$folder/x" --batch 0
ok "refused: word" refused 2 'optimizer cannot be "lamb": give adam or sgd' lenet "$few" -o "$folder/x" --optimizer lamb
ok "refused: preset" refused 2 'no preset "papers": choose one of plain, shipped, paper-cifar' lenet "$few" -o "$folder/x" --preset papers
ok "refused: images in no train/ and test/" refused 1 "has no train/ and test/: put some images" vgg-small "$few/train" -o "$folder/x" "${small[@]}"
ok "without test images they need not be" runs 0 train vgg-small "$few/train" -o "$folder/x.hwgq" "${small[@]}" --epochs 1 --no-test
mkdir -p "$folder/single/train/gray" "$folder/odd"
cp "$few"/train/gray/*.jpg "$folder/single/train/gray"
ok "refused: one class" refused 1 "has one class only" vgg-small "$folder/single" -o "$folder/x" "${small[@]}" --no-test
ok "refused: no test images" refused 1 "(--no-test trains without test images)" vgg-small "$folder/single" -o "$folder/x" "${small[@]}"
cp -r "$few/train" "$few/test" "$folder/odd"
mv "$folder/odd/test/gray" "$folder/odd/test/grey"
ok "misspelt class" runs 0 train vgg-small "$folder/odd" -o "$folder/x.hwgq" "${small[@]}" --epochs 1
ok "misspelt class: told" complains 'class "grey" has no images to train on'
ok "misspelt class: told" complains 'class "gray" has no images to test'
ok "refused: labels" refused 1 "has 1 labels" vgg-small "$few" -o "$folder/x" "${small[@]}" --labels "$folder/name"
ok "refused: export without a checkpoint" refused 2 "--export-only needs" lenet "$few" -o "$folder/x" --export-only
ok "refused: not a checkpoint" refused 2 image.checkpoint --resume "$folder/image.checkpoint" -o "$folder/x"
ok "refused: half a checkpoint" refused 2 cut.checkpoint --resume "$folder/cut.checkpoint" -o "$folder/x"
ok "refused: a model is no checkpoint" refused 2 "not a training checkpoint" --resume "$folder/a.hwgq" -o "$folder/x"
ok "refused: another network" refused 1 "another network" --resume "$folder/a.hwgq.checkpoint" -o "$folder/x" --width 0.1
ok "refused: another optimizer's checkpoint" refused 1 "--optimizer sgd, which stays" --resume "$folder/f.hwgq.checkpoint" -o "$folder/x" --optimizer adam
ok "refused: log that cannot be written" refused 1 "$folder/no/log" vgg-small "$few" -o "$folder/x" "${small[@]}" --log "$folder/no/log"
ok "refused: checkpoint that cannot be written" refused 1 "$folder/no" vgg-small "$few" -o "$folder/x" "${small[@]}" --epochs 1 --checkpoint "$folder/no/x"
ok "refused: output that cannot be written" refused 1 "$folder/no" vgg-small "$few" -o "$folder/no/x" "${small[@]}" --checkpoint "$folder/x"
ok "refused: output that cannot be written, before training" test ! -e "$folder/x" -a ! -s "$folder/out"
ok "refused: output is a folder" refused 1 "$folder" vgg-small "$few" -o "$folder" "${small[@]}" --checkpoint "$folder/x"
cp "$folder/a.log" "$folder/kept.log"
ok "refused: data" refused 1 nowhere lenet "$folder/nowhere" -o "$folder/x" --log "$folder/kept.log"
ok "refused: data" refused 1 nowhere lenet "$folder/nowhere" -o "$folder/x" --report "$folder/nothing"
ok "refused: no empty report is left" test ! -e "$folder/nothing"
ok "refused: the earlier log is kept" cmp -s "$folder/a.log" "$folder/kept.log"
ok "refused: another batch size within an epoch" refused 1 "within epoch 3" --resume "$folder/within" --batch 3
# The labels as they lie in the file, JSON within JSON, replaced by others of the same length.
spoiled() { # SED-COMMAND
  LC_ALL=C sed "$1" "$folder/k" >"$folder/labels"
  ! cmp -s "$folder/k" "$folder/labels" &&
    refused 1 "checkpoint $folder/labels are not a list of texts" --resume "$folder/labels" --export-only -o "$folder/x"
}
ok "refused: labels that are numbers" spoiled 's/\[\\"color\\",\\"gray\\"\]/[1,               2]/'
ok "refused: one label a number" spoiled 's/,\\"gray\\"\]/,       7]/'
ok "refused: labels that are no list" spoiled 's/\[\\"color\\",\\"gray\\"\]/{}                  /'
ok "refused: learning rate that explodes" refused 1 "try a lower --lr" vgg-small "$few" -o "$folder/x" "${small[@]}" --lr 1000 --optimizer sgd --weight-decay 1 --epochs 40
ok "help" runs 0 train --help
ok "help" prints "usage: hwgq train NETWORK DATA"
