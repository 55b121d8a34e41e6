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
# Images with other channels than the network usually has.
ok "new: gray images" runs 0 new vgg-small --width 0.1 --input 1x32x32 -o "$folder/gray.hwgq"
ok "new: gray images: preprocessing" runs 0 inspect --json "$folder/gray.hwgq"
ok "new: gray images: preprocessing" json '.[0] | .input == [1,32,32] and .preprocess.order == "gray" and .preprocess.mean == [121] and .preprocess.scale == [0.015625]'
ok "new: gray images: runs" runs 0 verify "$folder/gray.hwgq" tests/images/baseline.jpg
ok "new: color images" runs 0 new lenet --input 3x28x28 -o "$folder/color.hwgq"
ok "new: color images: preprocessing" runs 0 inspect --json "$folder/color.hwgq"
ok "new: color images: preprocessing" json '.[0].preprocess | .order == "RGB" and .mean == [0,0,0] and .scale == [0.00390625,0.00390625,0.00390625]'
ok "new: color images: runs" runs 0 verify "$folder/color.hwgq" tests/images/baseline.jpg
ok "new: two channels" runs 1 new vgg-small --input 2x32x32 -o "$folder/two.hwgq"
ok "new: two channels: what to choose" complains "an image has 3 channels, or 1 when it is gray, not 2"
ok "new: float weights run" runs 0 new vgg-small --width 0.1 --weights float --levels relu --affine yes -o "$folder/float.hwgq"
ok "new: as the reference has it" runs 0 verify "$folder/float.hwgq" tests/images/baseline.jpg
