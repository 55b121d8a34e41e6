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
ok "a trained one: no weight moves, and what it claims holds" test "$(jq -c '[.provenance | has("test_accuracy", "seed")]' "$folder/out")" = '[true,true]'
ok "a trained one --bits 8" runs 0 round --bits 8 models/zoo/cifar10.hwgq -o "$folder/again.hwgq"
ok "a trained one --bits 8: inspect" runs 0 inspect --json "$folder/again.hwgq"
ok "a trained one --bits 8: the accuracy is forgotten, the rest is not" test "$(jq -c '[.provenance | has("test_accuracy", "seed")]' "$folder/out")" = '[false,true]'
# Trained with PyTorch: its claim lies within "training". Three weights, which 16 bits do not hold as they are.
claims() { # OUT.safetensors
  python3 - "$1" <<'PYTHON'
import json, struct, sys
network = {"name": "claims", "input": [1, 4, 4], "layers": [
    {"name": "conv", "op": "conv2d", "inputs": ["input"], "out_channels": 1, "kernel": [1, 3]},
    {"name": "bn", "op": "batch_norm", "inputs": ["conv"]},
    {"name": "q", "op": "quantize", "inputs": ["bn"], "centers": [0.5], "thresholds": [0]},
    {"name": "fc", "op": "linear", "inputs": ["q"], "out_channels": 2},
    {"name": "prob", "op": "softmax", "inputs": ["fc"]}]}
preprocess = {"order": "gray", "resize": 0, "invert": False, "mean": [128], "scale": [0.015625]}
values = {"conv.weight": ([1, 1, 1, 3], [0.1, 0.77, -0.3]), "bn.running_mean": ([1], [0]), "bn.running_var": ([1], [1]),
          "fc.weight": ([2, 8], list(range(16)))}
header, data = {"__metadata__": {"network": json.dumps(network), "preprocess": json.dumps(preprocess),
                                 "provenance": json.dumps({"test_accuracy": 0.9, "epochs": 3})}}, b""
for name, (shape, numbers) in values.items():
    packed = struct.pack("<%df" % len(numbers), *numbers)
    header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(packed)]}
    data += packed
text = json.dumps(header).encode()
with open(sys.argv[1], "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text + data)
PYTHON
}
claimed() { # MODEL: what it says of its training
  "$hwgq" inspect --json "$1" | jq -c '[.provenance.training | has("test_accuracy", "epochs")]'
}
ok "of PyTorch" claims "$folder/claims.safetensors"
ok "of PyTorch" runs 0 import safetensors "$folder/claims.safetensors" -o "$folder/claims.hwgq"
ok "of PyTorch: claimed" test "$(claimed "$folder/claims.hwgq")" = '[true,true]'
ok "of PyTorch: round" runs 0 round "$folder/claims.hwgq" -o "$folder/rounded.hwgq"
ok "of PyTorch: the accuracy is forgotten, the rest is not" test "$(claimed "$folder/rounded.hwgq")" = '[false,true]'
for other in "--mean 127" "--scale 1/32" "--resize 5" "--invert"; do
  # shellcheck disable=SC2086
  ok "import with $other" runs 0 import safetensors "$folder/claims.safetensors" $other -o "$folder/other.hwgq"
  ok "import with $other: said" complains "the accuracy that the file claims is left out"
  ok "import with $other: the accuracy is forgotten" test "$(claimed "$folder/other.hwgq")" = '[false,true]'
done
ok "import with what the file says" runs 0 import safetensors "$folder/claims.safetensors" --mean 128 --scale 1/64 --order gray --resize 0 -o "$folder/other.hwgq"
ok "import with what the file says: claimed" test "$(claimed "$folder/other.hwgq")" = '[true,true]'
ok "nothing to round" runs 1 round "$folder/tie.hwgq" -o "$folder/again.hwgq"
ok "nothing to round" complains "no convolution on its input"
ok "round without --output" runs 2 round "$folder/new.hwgq"
ok "round nothing" runs 2 round -o "$folder/again.hwgq"
