#!/usr/bin/env bash
# Makes every built-in network with random weights and prints, as a Markdown table, what it costs to serve it: file size, load
# time (file -> checked -> folded and packed; as the daemon logs it), resident memory of a daemon with one worker after one image
# (as a whole, and beyond that of a daemon that has only the smallest network), time of one image on one core, and whether the
# daemon answers.
#   usage: IMAGE=FILE.jpg tests/bench/networks.sh [BUILD_DIRECTORY [NETWORK...]]
#   FOLDER=DIR keeps the models there and takes those that are there already; RUNS=N timed runs (20)
set -eu
build=$(realpath "${1:-build/release}")
shift || true
networks=${*:-lenet vgg-small vgg-small-relu alexnet vgg-variant darknet-19 googlenet resnet-18 resnet-34 resnet-50 resnet-18-small}
temporary=$(mktemp -d)
daemon=
trap '[ -z "$daemon" ] || kill "$daemon" 2>/dev/null; rm -rf "$temporary"' EXIT
folder=${FOLDER:-$temporary}
mkdir -p "$folder"

image=${IMAGE:?name a JPEG file to classify: IMAGE=FILE tests/bench/networks.sh}
for program in hwgqd hwgq tests/bench/bench_load; do
  [ -x "$build/$program" ] || { echo "networks.sh: $build/$program is missing: make bench builds it" >&2; exit 2; }
done

# serve MODEL: starts a daemon with one worker, classifies one image; sets status and rss_kb
serve() {
  local port_file=$temporary/port log=$temporary/log
  rm -f "$port_file"
  "$build/hwgqd" --listen 127.0.0.1:0 --port-file "$port_file" --workers 1 --io-threads 1 --models "$1" --log-format json \
    >"$log" 2>&1 &
  daemon=$!
  for _ in $(seq 1200); do [ -s "$port_file" ] && break; sleep 0.05; done
  status=$(curl -s -o "$temporary/answer" -w '%{http_code}' -F "image=@$image" "http://127.0.0.1:$(cat "$port_file")/classify")
  rss_kb=$(awk '/^VmRSS/ {print $2}' "/proc/$daemon/status")
  kill "$daemon"
  wait "$daemon" || true
  daemon=
}

printf '| network | file, MB | load, ms | daemon resident, MB | network alone, MB | image, ms | answer |\n'
printf '|---|---|---|---|---|---|---|\n'
[ -f "$folder/lenet.hwgq" ] || "$build/hwgq" new lenet --output "$folder/lenet.hwgq" >/dev/null
serve "$folder/lenet.hwgq"
base_kb=$rss_kb
for network in $networks; do
  model=$folder/$network.hwgq
  [ -f "$model" ] || "$build/hwgq" new "$network" --output "$model" >/dev/null
  serve "$model"
  load=$("$build/tests/bench/bench_load" "$model")
  bench=$("$build/hwgq" bench "$model" --json --runs "${RUNS:-20}")
  us=$(printf '%s' "$bench" | sed -E 's/.*"total":\{[^}]*"us":\{"median":([0-9.]+).*/\1/')
  awk -v n="$network" -v bytes="$(stat -c %s "$model")" -v load="$load" -v rss="$rss_kb" -v base="$base_kb" -v us="$us" -v s="$status" \
    'BEGIN {printf "| %s | %.2f | %s | %.1f | %.1f | %.2f | %s |\n", n, bytes / 1e6, load, rss / 1024, (rss - base) / 1024, us / 1000, s}'
done
printf '\n%s\n' "$(printf '%s' "$bench" | sed -E 's/.*"cpu":"([^"]*)","clock_ghz":([0-9.]*),"kernels":"([^"]*)".*/\1, \2 GHz, kernel set \3, one thread, batch 1/')"
