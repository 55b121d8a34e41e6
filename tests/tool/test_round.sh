# Rounding a first convolution, and what the file then asks for.
kernel() { # MODEL: of the first convolution
  "$hwgq" bench --json --runs 1 "$1" | jq -r '.stages[1].kernel'
}
ok "new" runs 0 new vgg-small --width 0.05 -o "$folder/new.hwgq"
ok "new: integers" test "$(kernel "$folder/new.hwgq" | cut -d_ -f1)" = iconv
ok "round" runs 0 round "$folder/new.hwgq" -o "$folder/again.hwgq"
ok "round: rounded weights stay" cmp -s "$folder/new.hwgq" "$folder/again.hwgq"
ok "round --bits 8" runs 0 round --bits 8 "$folder/new.hwgq" -o "$folder/bytes.hwgq"
ok "round --bits 8: other weights" test "$(sha256sum <"$folder/new.hwgq")" != "$(sha256sum <"$folder/bytes.hwgq")"
ok "round --bits 8: integers" test "$(kernel "$folder/bytes.hwgq" | cut -d_ -f1)" = iconv
ok "round: weights of 8 bits stay" runs 0 round "$folder/bytes.hwgq" -o "$folder/again.hwgq"
ok "round: weights of 8 bits stay: the same file" cmp -s "$folder/bytes.hwgq" "$folder/again.hwgq"
ok "round --bits 9" runs 1 round --bits 9 "$folder/new.hwgq" -o "$folder/again.hwgq"
ok "round --bits 9" complains "choose 8 or 16"
ok "round --float" runs 0 round --float "$folder/new.hwgq" -o "$folder/float.hwgq"
ok "round --float: floats" test "$(kernel "$folder/float.hwgq" | cut -d_ -f1)" = fconv
ok "round takes it back" runs 0 round "$folder/float.hwgq" -o "$folder/again.hwgq"
ok "round takes it back: the same file" cmp -s "$folder/new.hwgq" "$folder/again.hwgq"
ok "a trained one" runs 0 round models/zoo/cifar10.hwgq -o "$folder/again.hwgq"
ok "a trained one: inspect" runs 0 inspect --json "$folder/again.hwgq"
ok "a trained one: the accuracy is forgotten, the rest is not" test "$(jq -c '[.provenance | has("test_accuracy", "seed")]' "$folder/out")" = '[false,true]'
ok "nothing to round" runs 1 round "$folder/tie.hwgq" -o "$folder/again.hwgq"
ok "nothing to round" complains "no convolution on its input"
ok "round without --output" runs 2 round "$folder/new.hwgq"
ok "round nothing" runs 2 round -o "$folder/again.hwgq"
