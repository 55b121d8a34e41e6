#!/usr/bin/env bash
# Loads a daemon that serves cifar10 with 0.5, 1 and 3 times its capacity, and compares that capacity with what decoding and network
# alone reach on the same cores (hwgq bench --end-to-end). The generator (tests/bench/bench_http.c) runs on the same machine and
# takes its part of the cores: generator_cpu, in cores. Needs jq.
#   usage: tests/bench/load.sh IMAGE...      BUILD=build/release SECONDS_EACH=5 ROUNDS=3 WORKERS=(cores) FLAGS=(more of hwgqd's)
set -eu
cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || { sed -n '2,5s/^# //p' "$0" >&2; exit 2; }
build=${BUILD:-build/release} seconds=${SECONDS_EACH:-5} rounds=${ROUNDS:-3} workers=${WORKERS:-$(nproc)}
model=${MODEL:-models/zoo/cifar10.hwgq} bench=$build/tests/bench/bench_http
folder=$(mktemp -d)
# shellcheck disable=SC2086
"$build/hwgqd" --models "$model" --workers "$workers" --listen 127.0.0.1:0 --port-file "$folder/port" ${FLAGS:-} 2>"$folder/log" &
daemon=$!
trap 'kill $daemon 2>/dev/null; wait $daemon; rm -rf "$folder"' EXIT
while [ ! -s "$folder/port" ]; do kill -0 $daemon; sleep 0.05; done
port=$(cat "$folder/port")

cpu_ns() { cat /proc/$daemon/task/*/schedstat | awk '{ns += $1} END {printf "%.0f", ns}'; }
resident() { awk '/^VmRSS/ {print $2}' /proc/$daemon/status; }
field() { tr ' ' '\n' <<<"$1" | sed -n "s/^$2=//p"; }
median() { sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }

grep -m1 'model name' /proc/cpuinfo | sed 's/.*: //'
echo "cores: $(nproc), workers: $workers, images: $#"
"$bench" "$port" 0 1 32 "$@" >/dev/null # warm

for ((i = 0; i < rounds; i++)); do
  alone=$("$build/hwgq" bench "$model" --end-to-end --workers "$workers" --seconds "$seconds" --json "$@" |
    jq -r '.end_to_end[-1] | "workers=\(.workers) rate=\(.images_per_second.median) cpu_us=\(.us.cpu)"')
  before=$(cpu_ns)
  http=$("$bench" "$port" 0 "$seconds" 64 "$@") || true
  cost=$(($(cpu_ns) - before))
  echo "alone:  $alone"
  echo "closed: $http"
  field "$alone" rate >>"$folder/alone"
  field "$http" accepted >>"$folder/http"
  awk -v c="$cost" -v n="$(field "$http" ok)" -v a="$(field "$alone" cpu_us)" \
    'BEGIN {printf "daemon: %.1f us of processor time a request; decoding and network alone are %.1f %% of it\n", c / n / 1000, 100 * a * n * 1000 / c}'
done
capacity=$(median <"$folder/http")
awk -v h="$capacity" -v a="$(median <"$folder/alone")" \
  'BEGIN {printf "capacity: %d/s through HTTP, generator beside it; %d/s alone: %.1f %%\n", h, a, 100 * h / a}'

unloaded=$("$bench" "$port" 100 "$seconds" 16 "$@")
echo "100/s:  $unloaded resident_kb=$(resident)"
for times in 0.5 1 3; do
  rate=$(awk -v c="$capacity" -v t="$times" 'BEGIN {printf "%.0f", c * t}')
  before=$(cpu_ns)
  line=$("$bench" "$port" "$rate" "$seconds" 600 "$@") || echo "(connections were lost)"
  echo "${times}x:   $line resident_kb=$(resident) daemon_cpu=$(awk -v c=$(($(cpu_ns) - before)) -v s="$seconds" 'BEGIN {printf "%.2f", c / 1e9 / s}')"
  awk -v t="$times" -v m="$(field "$unloaded" p50)" -v p="$(field "$line" p99)" -v a="$(field "$line" accepted)" -v c="$capacity" \
    'BEGIN {printf "        accepted: p99 is %.1f times the unloaded median, throughput %.1f %% of capacity\n", p / m, 100 * a / c}'
done
