net=tests/golden/mini/model.prototxt weights=tests/golden/mini/model.caffemodel
ok "import" runs 0 import caffe $net $weights -o "$folder/import.hwgq"
ok "import: one line a model" prints "10 classes"
ok "import: a note" complains "note: "

# Whatever is wrong with a file, the message names it.
{ cat $net; echo 'weird: 3'; } >"$folder/weird.prototxt"
ok "unknown field" runs 1 import caffe "$folder/weird.prototxt" $weights -o "$folder/no.hwgq"
ok "unknown field: file and line" complains "weird.prototxt: prototxt line "
ok "weights of another network" runs 1 import caffe $net tests/golden/slim-basic/model.caffemodel -o "$folder/no.hwgq"
ok "weights of another network are named" complains "slim-basic/model.caffemodel: "
printf '0\n1\n2\n3\n4\n5\n6\n\377\n8\n9\n' >"$folder/labels.txt"
ok "label that is not UTF-8" runs 1 import caffe $net $weights --labels "$folder/labels.txt" -o "$folder/no.hwgq"
ok "label that is not UTF-8: file and line" complains "labels.txt: line 8 is not UTF-8"
: >"$folder/labels.txt"
ok "no labels" runs 1 import caffe $net $weights --labels "$folder/labels.txt" -o "$folder/no.hwgq"
ok "no labels: file" complains "labels.txt: must have 1 to "
ok "nothing was written" test ! -e "$folder/no.hwgq"
ok "mean" runs 0 import caffe $net $weights --mean 1/2,3,4 -o "$folder/import.hwgq"
for mean in 1,2 1,2,3,4 1,,3 x 1, nan; do ok "mean $mean" runs 2 import caffe $net $weights --mean $mean -o "$folder/no.hwgq"; done

# What is no regular file is not replaced by one.
mkfifo "$folder/pipe"
ok "pipe" runs 1 import caffe $net $weights -o "$folder/pipe"
ok "pipe is named" complains "pipe: is a device, pipe or socket"
ok "pipe is one still" test -p "$folder/pipe"

# What is read is not overwritten, whatever name it has.
cp $net "$folder/net.prototxt" && cp $weights "$folder/net.caffemodel" && ln -s net.prototxt "$folder/alias" && ln "$folder/net.caffemodel" "$folder/twin"
seq 0 9 >"$folder/digits.txt"
for output in net.prototxt net.caffemodel alias twin digits.txt; do
  ok "onto $output" runs 1 import caffe "$folder/net.prototxt" "$folder/net.caffemodel" --labels "$folder/digits.txt" -o "$folder/$output"
  ok "onto $output: said" complains "--output: '$folder/$output' is the file '$folder/"
done
ok "onto an input: it stays" cmp -s $net "$folder/net.prototxt"
ok "onto an input: it stays" cmp -s $weights "$folder/net.caffemodel"
ok "onto a state_dict" tie "$folder/state.safetensors"
ok "onto a state_dict" runs 1 import safetensors "$folder/state.safetensors" -o "$folder/state.safetensors"
ok "onto a state_dict: said" complains "that is read"
ok "onto an older model" runs 0 import caffe "$folder/net.prototxt" "$folder/net.caffemodel" -o "$folder/import.hwgq"
