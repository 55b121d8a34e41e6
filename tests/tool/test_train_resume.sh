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
