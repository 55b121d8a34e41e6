ok "inspect: bytes" runs 0 inspect "$model"
ok "inspect: bytes" prints "bytes        weight bits 9780 ("
ok "inspect: binary share" prints "of them binary: stored as signs, 1 bit each"
ok "inspect: first layer" prints "'stem' is float: by design"
ok "inspect: last layer" prints "'fc' is float: by design"
ok "inspect: stages" prints "stages on "
ok "inspect: thresholds" prints "(integers)"
ok "inspect: scratch" prints "bytes of scratch per run"
ok "inspect: json" runs 0 inspect --json --cpu scalar "$model"
ok "inspect: json bytes" json '.[0].bytes | .file == .weight_bits + .floats + .header and .header > 8'
ok "inspect: json layers" json '.[0] | (.layers | map(.bytes) | add) == .bytes.weight_bits + .bytes.floats'
ok "inspect: json totals" json '.[0] | (.layers | map(.macs) | add) == .totals.macs and (.layers | map(.parameters) | add) == .totals.parameters'
ok "inspect: json share" json '.[0].layers | map(select(.binary == true)) | length == 13 and all(.plus_share > 0.4 and .plus_share < 0.6)'
ok "inspect: json float layers" json '[.[0].layers[] | select(.binary == false) | .name] == ["stem", "fc"]'
ok "inspect: json plan" json '.[0].plan | .kernels == "scalar" and .scratch_bytes > 0'
ok "inspect: json thresholds" json '.[0].plan.stages[] | select(.name == "u1_c3").thresholds | .channels == 36 and .reversed == 6 and .integers and .least <= .median and .median <= .largest'
ok "inspect: json macs" json '.[0] | (.plan.stages | map(.macs) | add) == .totals.macs'
ok "inspect: unknown set" runs 1 inspect --cpu mmx "$model"

ok "inspect caffemodel" runs 0 inspect tests/golden/mini/model.caffemodel
ok "inspect caffemodel: answer" prints "Weights that do not look binarized"
ok "inspect caffemodel: json" runs 0 inspect --json tests/golden/mini/model.caffemodel
ok "inspect caffemodel: latent" json '.[0].layers | length == 15 and all(.one_magnitude_per_channel | not)'
ok "inspect caffemodel: bw" runs 0 inspect --json tests/golden/mini/model_bw.caffemodel
ok "inspect caffemodel: bw" json '[.[0].layers[] | select(.one_magnitude_per_channel | not) | .name] == ["stem", "fc"]'
head -c 100000 tests/golden/mini/model.caffemodel >"$folder/cut.caffemodel"
ok "inspect caffemodel: cut" runs 1 inspect "$folder/cut.caffemodel"
ok "inspect caffemodel: missing" runs 1 inspect "$folder/none.caffemodel"

ok "inspect: memory" runs 0 inspect "$model"
ok "inspect: memory plan" prints "scratch memory of a run: what lies where"
ok "inspect: memory json" runs 0 inspect --json "$model"
ok "inspect: memory places" json '.[0].plan | .scratch_bytes as $all | (.stages | length) as $stages | (.memory | length > 5) and (.memory | all(.offset + .bytes <= $all and .first_stage <= .last_stage and .last_stage <= $stages))'
# Two places of one stage are apart, or the same: a tensor that takes over another's memory.
ok "inspect: memory lifetimes" json '.[0].plan.memory | . as $m | [range(length) as $i | range($i) as $j | [$m[$i], $m[$j]] | select(.[0].own == .[1].own and .[0].first_stage <= .[1].last_stage and .[1].first_stage <= .[0].last_stage)] | length > 5 and all(.[0].offset == .[1].offset or .[0].offset + .[0].bytes <= .[1].offset or .[1].offset + .[1].bytes <= .[0].offset)'
