# hwgq train: runs that go on with other options or other data, files that must not be lost, and names that cannot be. Needs
# $few, $small and refused of test_train.sh.

# A complete run with other options: the model that they make is tested before it is said to be right so often.
claims() { # MODEL: the accuracy in the file is what eval counts
  runs 0 eval --json "$1" "$few" && jq -e --argjson claim "$("$hwgq" inspect --json "$1" | jq .provenance.test_accuracy)" \
    '($claim - .top1) | fabs < 1e-5' "$folder/out" >/dev/null
}
claims_nothing() { "$hwgq" inspect --json "$1" | jq -e '.provenance | has("test_accuracy") | not' >/dev/null; }
is_as_before() { cmp -s "$folder/complete" "$folder/r.hwgq.checkpoint"; }
averaged=(vgg-small "$few" --width 0.04 --batch 5 --threads 2 --pad 0 --mirror no --average 0.5 --epochs 12)
ok "complete" runs 0 train "${averaged[@]}" -o "$folder/r.hwgq"
ok "complete: claims what is so" claims "$folder/r.hwgq"
cp "$folder/r.hwgq.checkpoint" "$folder/complete"
for changed in "--mean 0 --scale 1" "--invert yes" "--average 0" "--statistics-batches 1" "--average 0 --statistics-batches 2"; do
  # shellcheck disable=SC2086
  ok "complete, $changed" runs 0 train --resume "$folder/r.hwgq.checkpoint" $changed -o "$folder/r2.hwgq"
  ok "complete, $changed: tested" prints "tested once more, with the options that changed"
  ok "complete, $changed: claims what is so" claims "$folder/r2.hwgq"
done
ok "complete, statistics of another number of batches" runs 0 train --resume "$folder/r.hwgq.checkpoint" --statistics-batches 1 -o "$folder/r2.hwgq"
first=$(digest)
ok "complete, statistics of another number of batches: from the start" runs 0 train "${averaged[@]}" --statistics-batches 1 -o "$folder/r2.hwgq"
ok "complete, statistics of another number of batches: the same weights" test "$(digest)" = "$first"
ok "complete, --no-test" runs 0 train --resume "$folder/r.hwgq.checkpoint" --no-test --invert yes -o "$folder/r2.hwgq"
ok "complete, --no-test: claims nothing" claims_nothing "$folder/r2.hwgq"
ok "complete, nothing changed" runs 0 train --resume "$folder/r.hwgq.checkpoint" -o "$folder/r2.hwgq"
ok "complete, nothing changed: the same file" cmp -s "$folder/r.hwgq" "$folder/r2.hwgq"
ok "complete: the checkpoint stays" is_as_before

# Outputs that would replace one another, or what is read.
cp "$folder/r.hwgq" "$folder/te.hwgq"
cp "$folder/complete" "$folder/r.ck"
tar -cf "$folder/dd.tar" -C "$few" train test
printf 'a\nb\n' >"$folder/two-names"
mkdir "$folder/elsewhere"
ln -s "$folder/te.hwgq" "$folder/link.hwgq"
ln -s "$folder" "$folder/elsewhere/back"
ln -s nowhere "$folder/dangling"
both=$folder/both.hwgq
kept() { # FILE CODE TEXT ARGUMENT...: refused, and the file is as it was
  local file=$1 before
  shift
  before=$(cksum <"$file")
  refused "$@" && [ "$(cksum <"$file")" = "$before" ] && [ ! -s "$folder/out" ]
}
new=(vgg-small "$few" "${small[@]}" --epochs 1)
printf "one\n" >"$folder/name"
ok "lost: the checkpoint that is exported" kept "$folder/r.ck" 1 "the model $folder/r.ck would replace the checkpoint to resume (--resume $folder/r.ck), which is the same file: choose another --output" \
  --resume "$folder/r.ck" --export-only -o "$folder/r.ck"
ok "lost: the checkpoint that is resumed" kept "$folder/r.ck" 1 "would be the same file: choose another --output or --checkpoint" --resume "$folder/r.ck" -o "$folder/r.ck"
ok "lost: ... with another checkpoint" kept "$folder/r.ck" 1 "would replace the checkpoint to resume" --resume "$folder/r.ck" -o "$folder/elsewhere/back/r.ck" --checkpoint "$folder/x"
ok "lost: the data" kept "$folder/dd.tar" 1 "the model $folder/dd.tar would replace the data (DATA $folder/dd.tar)" vgg-small "$folder/dd.tar" "${small[@]}" -o "$folder/dd.tar"
ok "lost: the data, to the log" kept "$folder/dd.tar" 1 "the log $folder/dd.tar would replace the data" vgg-small "$folder/dd.tar" "${small[@]}" -o "$folder/x" --log "$folder/dd.tar"
ok "lost: the teacher" kept "$folder/te.hwgq" 1 "would replace the teacher (--teacher $folder/te.hwgq)" "${new[@]}" --teacher "$folder/te.hwgq" -o "$folder/te.hwgq"
ok "lost: the teacher, by a link" kept "$folder/te.hwgq" 1 "would replace the teacher" "${new[@]}" --teacher "$folder/te.hwgq" -o "$folder/link.hwgq"
ok "lost: the teacher, to the checkpoint" kept "$folder/te.hwgq" 1 "choose another --checkpoint" "${new[@]}" --teacher "$folder/link.hwgq" -o "$folder/x" --checkpoint "$folder/te.hwgq"
ok "lost: what it begins with" kept "$folder/te.hwgq" 1 "would replace the weights to begin with" "${new[@]}" --initial "$folder/te.hwgq" -o "$folder/elsewhere/back/te.hwgq"
ok "lost: the labels" kept "$folder/two-names" 1 "would replace the labels" "${new[@]}" --labels "$folder/two-names" -o "$folder/x" --log "$folder/two-names"
ok "lost: one of two outputs" refused 1 "the model $both and the checkpoint $both would be the same file: choose another --output or --checkpoint" "${new[@]}" -o "$both" --checkpoint "$both"
ok "lost: one of two outputs, through a link" refused 1 "would be the same file" "${new[@]}" -o "$both" --checkpoint "$folder/elsewhere/back/both.hwgq"
ok "lost: one of two outputs, the log" refused 1 "choose another --checkpoint or --log" "${new[@]}" -o "$both" --log "$both.checkpoint"
ok "lost: the model with the lock" refused 1 "the lock beside the checkpoint" "${new[@]}" -o "$both.lock" --checkpoint "$both"
ok "lost: nothing was begun" test ! -e "$both" -a ! -e "$both.checkpoint" -a ! -e "$both.lock"
ok "a link to nothing is refused at once" refused 1 "$folder/dangling: it is a symbolic link to nothing" "${new[@]}" -o "$folder/dangling"
ok "a log that is a link to nothing" refused 1 "$folder/dangling: it is a symbolic link to nothing" "${new[@]}" -o "$folder/x" --log "$folder/dangling"
ok "apart: a name in two folders" runs 0 train "${new[@]}" -o "$folder/elsewhere/te.hwgq" --checkpoint "$folder/te.hwgq.checkpoint" --log "$folder/elsewhere/log"
ok "apart: an older model is replaced" runs 0 train "${new[@]}" -o "$folder/elsewhere/te.hwgq" --log "$folder/elsewhere/log"
ok "apart: a checkpoint that is resumed is written" runs 0 train --resume "$folder/elsewhere/back/te.hwgq.checkpoint" --checkpoint "$folder/te.hwgq.checkpoint" --epochs 2 -o "$folder/elsewhere/te.hwgq"

# Other data than the run had.
labels_are_those() { # MODEL JSON
  runs 0 classify --json "$1" tests/images/gray.jpg && json "([.[0].predictions[].label] | sort) == $2"
}
cp -r "$few" "$folder/dogs"
for split in train test; do mv "$folder/dogs/$split/gray" "$folder/dogs/$split/dog"; done
cp -r "$few" "$folder/three-classes"
mkdir "$folder/three-classes/train/more"
cp tests/images/gray.jpg "$folder/three-classes/train/more"
for name in names no-names; do
  labels=()
  [ "$name" = names ] && labels=(--labels "$folder/two-names")
  ok "other classes, $name" runs 0 train "${new[@]}" "${labels[@]}" --epochs 2 -o "$folder/c.hwgq"
  ok "other classes, $name: a name" refused 1 "class 1 is \"dog\" in $folder/dogs and was \"gray\" in the data of checkpoint $folder/c.hwgq.checkpoint: resume it with that data, or" \
    vgg-small "$folder/dogs" --resume "$folder/c.hwgq.checkpoint" --epochs 3
  ok "other classes, $name: one more" refused 1 "3 classes" \
    vgg-small "$folder/three-classes" --resume "$folder/c.hwgq.checkpoint" --epochs 3
done
ok "other classes: how many" complains "$folder/three-classes has 3 classes, the data of checkpoint $folder/c.hwgq.checkpoint had 2"
ok "other classes: labels only rename" runs 0 train --resume "$folder/c.hwgq.checkpoint" --labels "$folder/two-names" --epochs 3
ok "other classes: labels are in the model" labels_are_those "$folder/c.hwgq" '["a", "b"]'
ok "other classes: whose folders have new names" runs 0 train vgg-small "$folder/dogs" --resume "$folder/c.hwgq.checkpoint" --labels "$folder/two-names" --epochs 4
ok "other images of the same classes, between epochs" runs 0 train vgg-small "$folder/dd.tar" --resume "$folder/c.hwgq.checkpoint" --labels "$folder/two-names" --limit 12 --epochs 5
# A checkpoint of an older version, which has the labels only. (The recipe's text keeps its length.)
ok "older checkpoint" runs 0 train "${new[@]}" -o "$folder/c.hwgq"
LC_ALL=C sed 's/\\"classes\\":/\\"klasses\\":/' "$folder/c.hwgq.checkpoint" >"$folder/old"
ok "older checkpoint: is one" grep -aqF 'klasses' "$folder/old"
ok "older checkpoint: other classes" refused 1 'class 1 is "dog" in ' vgg-small "$folder/dogs" --resume "$folder/old" --epochs 2
ok "older checkpoint: the same classes" runs 0 train --resume "$folder/old" --epochs 2
# Within an epoch.
ok "other number of images" runs 0 train "${new[@]}" --epochs 2 -o "$folder/c.hwgq"
LC_ALL=C sed 's/\\"step\\":0,/\\"step\\":1,/' "$folder/c.hwgq.checkpoint" >"$folder/within"
ok "other number of images" refused 1 "within epoch 3, which was begun with 15 images, not 8: finish the epoch with the same data and --limit first" \
  --resume "$folder/within" --epochs 4 --limit 8
ok "other number of images: the same one" runs 0 train --resume "$folder/within" --epochs 4

# Labels that no model can have, refused before anything is trained.
never() { # TEXT ARGUMENT...: refused, and no epoch begun
  refused 1 "$@" -o "$folder/never.hwgq" && [ ! -s "$folder/out" ] && [ ! -e "$folder/never.hwgq.checkpoint" ]
}
bad_label() { # TEXT BYTES: of printf
  # shellcheck disable=SC2059
  printf "$2" >"$folder/bad-names"
  never "$folder/bad-names: line 2 $1: give one label a line, in UTF-8" "${new[@]}" --labels "$folder/bad-names"
}
ok "labels: an empty line" bad_label "must have 1 to 256 bytes" 'a\n\n'
ok "labels: an empty line, CR" bad_label "must have 1 to 256 bytes" 'a\r\n\r\n'
ok "labels: too long" bad_label "must have 1 to 256 bytes" "a\n$(printf '%0257d' 0)\n"
ok "labels: a tab" bad_label "contains a control character, byte 1" 'a\nb\tc'
ok "labels: a zero" bad_label "contains a control character, byte 1" 'a\nb\000c\n'
ok "labels: not UTF-8" bad_label "is not valid UTF-8" 'a\nb\344h\n'
ok "labels: fewer than classes" never "has 1 labels, the images have 2 classes" "${new[@]}" --labels "$folder/name"
printf 'b\344r\n' >"$folder/latin"
ok "labels: not UTF-8, fewer" never "$folder/latin: line 1 is not valid UTF-8" "${new[@]}" --labels "$folder/latin"
cp -r "$few" "$folder/tabs"
for split in train test; do mv "$folder/tabs/$split/gray" "$folder/tabs/$split/x"$'\t'"y"; done
tabs=(vgg-small "$folder/tabs" "${small[@]}" --epochs 1)
ok "labels: a folder with a tab" never "$folder/tabs: the name of class 1 contains a control character, byte 1: rename its folder, or give --labels FILE" "${tabs[@]}"
ok "labels: a folder with a tab, named otherwise" runs 0 train "${tabs[@]}" --labels "$folder/two-names" -o "$folder/t.hwgq"
# Of a checkpoint: JSON within JSON, whose length stays.
LC_ALL=C sed 's/\\"labels\\":\[\\"a\\",\\"b\\"/\\"labels\\":[\\"a\\",\\"\\"/; s/\\"train_loss\\"/ &/' "$folder/t.hwgq.checkpoint" >"$folder/t.ck"
ok "labels: a checkpoint's" never "checkpoint $folder/t.ck: label 1 must have 1 to 256 bytes: give others with --labels FILE" --resume "$folder/t.ck" --export-only
printf 'one\ntwo\n' >"$folder/others"
ok "labels: a checkpoint's, others" runs 0 train --resume "$folder/t.ck" --export-only --labels "$folder/others" -o "$folder/t2.hwgq"
ok "labels: a checkpoint's, others" labels_are_those "$folder/t2.hwgq" '["one", "two"]'
ok "labels: others, the same accuracy" test "$("$hwgq" inspect --json "$folder/t.hwgq" | jq .provenance.test_accuracy)" = "$("$hwgq" inspect --json "$folder/t2.hwgq" | jq -e .provenance.test_accuracy)"
ok "labels: a checkpoint's, too few" never "has 1 labels, the network has 2 classes" --resume "$folder/t.ck" --export-only --labels "$folder/name"
rm "$folder/two-names"
ok "labels: a checkpoint's, whose file is gone" runs 0 train --resume "$folder/t.hwgq.checkpoint" --export-only -o "$folder/t2.hwgq"
ok "labels: a checkpoint's, whose file is gone" labels_are_those "$folder/t2.hwgq" '["a", "b"]'
printf 'a\nb\n' >"$folder/two-names"

# What the shell makes of a variable that is not set.
empty=$folder/an-empty-folder
mkdir "$empty"
refused_empty() { # NAME ARGUMENT...
  (cd "$empty" && refused 2 "$1 is empty: give a value" "${@:2}") && [ ! -s "$folder/out" ] && [ -z "$(ls -A "$empty")" ]
}
ok "empty: -o" refused_empty output "${new[@]}" -o ""
ok "empty: --output=" refused_empty output "${new[@]}" --output=
ok "empty: -o, exported" refused_empty output --resume "$folder/t.ck" --export-only -o ""
for option in checkpoint log report labels teacher initial resume; do ok "empty: --$option" refused_empty "$option" "${new[@]}" -o x "--$option" ""; done
ok "empty: data" refused_empty data lenet "" -o x

# Begun again and again without --resume: no earlier checkpoint is lost.
earlier=()
for old in "" .old .old.2 .old.3; do
  ok "begun again$old" runs 0 train "${new[@]}" -o "$folder/again.hwgq" --seed $((${#earlier[@]} + 1))
  [ -z "$old" ] || ok "begun again$old: told" prints "hwgq train --resume $folder/again.hwgq.checkpoint$old would go on with it"
  earlier+=("$(cksum <"$folder/again.hwgq.checkpoint")")
done
ok "begun again: the first is kept" test "$(cksum <"$folder/again.hwgq.checkpoint.old")" = "${earlier[0]}"
ok "begun again: the second is kept" test "$(cksum <"$folder/again.hwgq.checkpoint.old.2")" = "${earlier[1]}"
ok "begun again: the third is kept" test "$(cksum <"$folder/again.hwgq.checkpoint.old.3")" = "${earlier[2]}"
cp "$folder/again.hwgq.checkpoint" "$folder/another"
ok "resumed into another run's checkpoint" runs 0 train --resume "$folder/again.hwgq.checkpoint.old" --checkpoint "$folder/another" --epochs 2
ok "resumed into another run's checkpoint: it is kept" cmp -s "$folder/again.hwgq.checkpoint" "$folder/another.old"
ok "resumed, complete: nothing is renamed" runs 0 train --resume "$folder/again.hwgq.checkpoint.old" --checkpoint "$folder/another"
ok "resumed, complete: nothing is renamed" test -e "$folder/another" -a ! -e "$folder/another.old.2"
