ok "inspect" runs 0 inspect "$model"
for text in "network      hwgq-mini" "input        3x31x33" "classes      10: 0, 1" "preprocess   BGR" "digest       xxh3:" "softmax" "provenance"; do
  ok "inspect: $text" prints "$text"
done
ok "bytes are the file's" prints "$(stat -c %s "$model") bytes"
# Bytes, parameters and multiply-accumulates of the layers add up to the last line; +1 weights are a share.
adds_up() {
  awk '/^layer /{on=1; b=index($0," bytes")+5; m=index($0," macs")+4; p=index($0," parameters")+10; next}
    on && NF==0 {exit}
    function column(end, width) { return substr($0, end - width + 1, width) + 0 }
    on && $1=="total" { tb=column(b,12); tm=column(m,14); tp=column(p,12); next }
    on { sb+=column(b,12); sm+=column(m,14); sp+=column(p,12) }
    END { exit !(sb==tb && sm==tm && sp==tp && tb>0 && tm>0 && tp>0) }' "$folder/out"
}
ok "layers add up" adds_up
ok "missing file" runs 1 inspect "$folder/none.hwgq"
head -c 1000 "$model" >"$folder/cut.hwgq"
ok "cut file" runs 1 inspect "$folder/cut.hwgq"
ok "cut file is named" complains "cut.hwgq"
ok "two files" runs 2 inspect "$model" "$model"
ok "caffemodel" runs 0 inspect tests/golden/mini/model.caffemodel
head -c 1000 tests/golden/mini/model.caffemodel >"$folder/cut.caffemodel"
ok "cut caffemodel" runs 1 inspect "$folder/cut.caffemodel"
ok "cut caffemodel is named" complains "cut.caffemodel: caffemodel: "
