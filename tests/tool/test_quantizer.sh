ok "2 bits" runs 0 quantizer --bits 2 --uniform
ok "2 bits: step" prints "0.5388"
ok "2 bits: error" prints "0.0864"
ok "json" runs 0 quantizer --bits 2 --json
ok "json: fields" json '.[0] | .levels == 3 and .uniform and .zero == "0" and (.centers | length == 3) and (.thresholds | length == 3)'
ok "json: figures" json '.[0] | (.centers[0] - 0.5388 | fabs) < 0.0001 and (.mean_squared_error - 0.0864 | fabs) < 0.0001'
ok "half-step zero" runs 0 quantizer --bits=3 --zero half --json
ok "half-step zero" json '.[0] | .levels == 7 and .thresholds[0] > 0 and (.centers[0] - 0.3534 | fabs) < 0.0001'
ok "free levels" runs 0 quantizer --levels 2 --nonuniform --json
ok "free levels" json '.[0] | (.uniform | not) and (.centers[1] - 1.51 | fabs) < 0.001'
for wrong in "--bits 5" "--bits 0" "--bits two" "--levels 16" "--zero 1" "--bits 2 --levels 3" "--uniform --nonuniform" "operand" "--bits"; do
  # shellcheck disable=SC2086
  ok "quantizer $wrong" runs 2 quantizer $wrong
done
