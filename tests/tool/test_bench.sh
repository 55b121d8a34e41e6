ok "bench" runs 0 bench --runs 5 "$model"
ok "bench: table" prints "us median"
ok "bench: bytes touched" prints "kB: bytes touched: weights, input and output, each once."
ok "bench: memory" prints "scratch memory of a run"
ok "bench: threads and workers" runs 0 bench --runs 5 --threads 2 --workers 2 --cpu scalar "$model"
ok "bench: threads" prints "2 threads take"
ok "bench: workers" prints "images per second: one worker"
ok "bench: json" runs 0 bench --json --runs 20 "$model"
ok "bench: spread" json '.[0] | [.stages[], .total] | all(.us.min <= .us.median and .us.median <= .us.max)'
ok "bench: sums" json '.[0] | (.stages | map(.macs) | add) == .total.macs and (.stages | map(.executed_macs) | add) == .total.executed_macs and (.stages | map(.touched_bytes) | add) == .total.touched_bytes'
ok "bench: touched" json '.[0].stages | all(.touched_bytes == .weight_bytes + .input_bytes + .output_bytes)'
ok "bench: padded taps are not executed" json '.[0] | .total.executed_macs < .total.macs and (.stages | all(.executed_macs <= .macs))'
ok "bench: noise" json '.[0] | .noisy == (.noise.median_over_min > 1.1 or .noise.clock_change > 0.05 or .noise.core_share < 0.95) or (.noise | [.median_over_min * 1000, .clock_change * 1000, .core_share * 1000] | map(round) | any(. == 1100 or . == 50 or . == 950))'
ok "bench: scalar has no model" runs 0 bench --json --runs 2 --cpu scalar "$model"
ok "bench: no bounds" json '.[0].stages | all(.bound == null and .cache_bound == null)'
if grep -qw avx2 /proc/cpuinfo; then
  ok "bench: avx2" runs 0 bench --json --runs 2 --cpu avx2 --form popcount "$model"
  ok "bench: bound of population counts" json '.[0] | if .bounds_of == null then .stages | all(.bound == null) else ([.stages[] | select(.kernel == "bconv_u2_popcount_avx2").bound.macs_per_cycle] | length > 0 and all(. == 64 or . == 48)) end'
  ok "bench: share" json '.[0] | .stages | map(select(.bound)) | all(.bound.share > 0 and (.bound.data_dependent | not))'
  ok "bench: sliced" runs 0 bench --json --runs 2 --cpu avx2 --form sliced "$model"
  ok "bench: set bits" json '.[0] | [.stages[] | select(.kernel | endswith("sliced_avx2"))] | length > 0 and (all(.bound.set_bits > 0.1 and .bound.set_bits < 1.5 and .bound.data_dependent) or .[0].bound == null)'
fi
ok "bench: random weights" runs 0 bench --network lenet --runs 3
ok "bench: unknown network" runs 1 bench --network nonesuch
ok "bench: nothing" runs 2 bench
ok "bench: model and network" runs 2 bench --network lenet "$model"

ok "bench --sets" runs 0 bench --sets --runs 3 "$model"
ok "bench --sets: scalar" prints "scalar"
ok "bench --sets: json" runs 0 bench --sets --runs 3 --json "$model"
ok "bench --sets: spread" json '.[0] | (.sets | map(.kernels) | index("scalar") != null) and (.sets | all(.us.min <= .us.median)) and .macs > 0'
ok "bench --sets --cpu" runs 2 bench --sets --cpu scalar "$model"

photo=tests/images/baseline.jpg
ok "bench --end-to-end" runs 0 bench --end-to-end --seconds 0.2 --workers 2 "$model"
ok "bench --end-to-end: made up" prints "a JPEG of 32x32 pixels"
ok "bench --end-to-end: ratio" prints "times the throughput of one"
ok "bench --end-to-end: photograph" runs 0 bench --end-to-end --seconds 0.2 --workers 2 --json "$model" "$photo"
ok "bench --end-to-end: json" json '.[0] | .images == 1 and (.end_to_end | map(.workers)) == [1, 2] and (.end_to_end | all(.images_per_second.min > 0 and .images_per_second.min <= .images_per_second.median and .us.cpu > 0 and .us.decode > 0 and .us.inference > 0))'
ok "bench --end-to-end: one worker" runs 0 bench --end-to-end --seconds 0.1 --workers 1 --json "$model"
ok "bench --end-to-end: one worker" json '.[0].end_to_end | length == 1'
ok "bench --end-to-end: no such image" runs 1 bench --end-to-end "$model" "$folder/none.jpg"
ok "bench --end-to-end: no image" runs 1 bench --end-to-end --seconds 0.1 "$model" "$model"
ok "bench --end-to-end: named" complains "mini.hwgq: "
ok "bench --end-to-end: folder" runs 1 bench --end-to-end "$model" "$folder"
ok "bench --end-to-end: no model" runs 2 bench --end-to-end --network lenet
ok "bench: images" runs 2 bench "$model" "$photo"
