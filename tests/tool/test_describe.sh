# The variants of a network that training knows, as descriptions.
layers() { json ".[0].layers | $1"; }
ok "describe" runs 0 describe vgg-small --width 0.1
ok "describe: binary, quantized" layers '(map(select(.binary)) | length == 5) and (map(select(.op == "quantize")) | length == 6) and (map(select(.op == "scale")) | length == 0)'
ok "describe: float" runs 0 describe vgg-small --width 0.1 --weights float --levels relu --affine yes
ok "describe: float, ReLU, scales" layers '(map(select(.binary)) | length == 0) and (map(select(.op == "relu")) | length == 6) and (map(select(.op == "scale")) | length == 6)'
ok "describe: refused: weights" runs 1 describe vgg-small --weights ternary
ok "describe: refused: which" complains "--weights takes float or binary, not 'ternary'"
ok "describe: refused: affine" runs 1 describe vgg-small --affine maybe
ok "describe: refused: levels of nothing" runs 1 describe vgg-small --levels relu --bits 2
ok "describe: refused: which" complains "--levels relu goes without --bits"
ok "new: float weights run" runs 0 new vgg-small --width 0.1 --weights float --levels relu --affine yes -o "$folder/float.hwgq"
ok "new: as the reference has it" runs 0 verify "$folder/float.hwgq" tests/images/baseline.jpg
