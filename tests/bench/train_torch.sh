#!/usr/bin/env bash
# Images per second of `hwgq train` and of PyTorch on the CPU (models/train/torch), training the same network on the same images
# with the same number of threads, in turns; and the ratios of their medians.
#   usage: tests/bench/train_torch.sh DATA [ROUNDS [WIDTH [IMAGES [THREADS]]]]
# DATA: a folder with train/CLASS/IMAGE. Needs python3-torch and python3-pil.
set -eu
cd "$(dirname "$0")/../.."
[ $# -ge 1 ] || { sed -n '2,5s/^# *//p' "$0" >&2; exit 2; }
data=$(realpath "$1") rounds=${2:-3} width=${3:-1} images=${4:-500} threads=${5:-2}
hwgq=${HWGQ:-build/release/hwgq}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# Without test images, so that nothing but training is timed; as many images of every class as one alone would need.
for class in "$data"/train/*/; do
  mkdir -p "$folder/data/train/$(basename "$class")"
  find -L "$class" -type f | sort | head -n "$images" | xargs cp -t "$folder/data/train/$(basename "$class")"
done
unset OPENBLAS_CORETYPE
export OMP_NUM_THREADS=$threads

speed() { # NAME COMMAND...: appends the images per second of the last epoch to the file of that name
  local name=$1
  shift
  "$@" >"$folder/out" 2>&1 || { cat "$folder/out" >&2; exit 1; }
  sed -n 's/.*, \([0-9]*\) images\/s$/\1/p' "$folder/out" | tail -1 >>"$folder/$name"
}
hwgq_train() { # PRECISION
  speed "$1" "$hwgq" train vgg-small "$folder/data" --no-test --width "$width" --limit "$images" --epochs 1 --threads "$threads" \
    --precision "$1" -o "$folder/a.hwgq"
}
median() { sort -n "$folder/$1" | sed -n "$(((rounds + 1) / 2))p"; }

for _ in $(seq "$rounds"); do
  hwgq_train mixed
  hwgq_train float32
  speed torch /usr/bin/python3 models/train/torch/train.py vgg-small "$folder/data" --hwgq "$hwgq" --width "$width" --limit "$images" \
    --epochs 1 --device cpu -o "$folder/a.safetensors"
done

grep -m1 'model name' /proc/cpuinfo | sed 's/.*: //'
torch=$(median torch)
echo "vgg-small, width $width, $threads threads, batch 100, median of $rounds rounds, images/s (all rounds), ratio to PyTorch"
for name in mixed float32 torch; do
  speed=$(median $name)
  printf '%-8s %6d  (%s)  %s\n' "$name" "$speed" "$(tr '\n' ' ' <"$folder/$name" | sed 's/ $//')" \
    "$(awk "BEGIN { printf \"%.2f\", $speed / $torch }")"
done
