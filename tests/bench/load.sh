#!/usr/bin/env bash
# Loads a daemon that serves cifar10 with 0.5, 1 and 3 times its capacity, and compares that capacity with what decoding and network
# alone reach on the same cores (hwgq bench --end-to-end). The generator (tests/bench/bench_http.c) runs on the same machine and
# takes its part of the cores, so there are two figures: the plain one is of requests per second, with the generator and the
# kernel's work for it beside the daemon; the one by processor time is of the daemon's own, which is what it would reach if the
# generator ran elsewhere. Arrivals are evenly spaced: without other programs on the machine nothing waits at 0.5 times capacity.
# Run as root, so that the generator need not wait for the daemon's threads. Needs jq.
#   usage: tests/bench/load.sh IMAGE...      BUILD=build/release SECONDS_EACH=5 ROUNDS=3 WORKERS=(cores) FLAGS=(more of hwgqd's)
#                                            MODEL=models/zoo/cifar10.hwgq
set -eu
cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || { sed -n '/^#!/d;/^#/!q;s/^# *//p' "$0" >&2; exit 2; }
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
  field "$alone" cpu_us >>"$folder/alone_us"
  field "$http" accepted >>"$folder/http"
  awk -v c="$cost" -v n="$(field "$http" ok)" 'BEGIN {printf "%.1f\n", c / n / 1000}' >>"$folder/http_us"
done
capacity=$(median <"$folder/http")
cost_us=$(median <"$folder/http_us")
awk -v h="$capacity" -v a="$(median <"$folder/alone")" -v hu="$cost_us" -v au="$(median <"$folder/alone_us")" \
  'BEGIN {printf "capacity: %d/s through HTTP, %d/s alone: %.1f %%\n", h, a, 100 * h / a
          printf "          by processor time: %.1f us a request, %.1f us alone: %.1f %%\n", hu, au, 100 * au / hu}'

unloaded=$("$bench" "$port" 100 "$seconds" 16 "$@")
echo "100/s:  $unloaded resident_kb=$(resident)"
for times in 0.5 1 3; do
  rate=$(awk -v c="$capacity" -v t="$times" 'BEGIN {printf "%.0f", c * t}')
  before=$(cpu_ns)
  line=$("$bench" "$port" "$rate" "$seconds" 600 "$@") || echo "(connections were lost)"
  cost=$(($(cpu_ns) - before))
  echo "${times}x:   $line resident_kb=$(resident) daemon_cpu=$(awk -v c=$cost -v s="$seconds" 'BEGIN {printf "%.2f", c / 1e9 / s}')"
  awk -v m="$(field "$unloaded" p50)" -v p="$(field "$line" p99)" -v a="$(field "$line" accepted)" -v c="$capacity" \
    -v us="$cost_us" -v ns=$cost -v n="$(field "$line" ok)" -v r="$(field "$line" refused_p99)" \
    'BEGIN {printf "        accepted: p99 is %.1f times the unloaded median, throughput %.1f %% of capacity", p / m, 100 * a / c
            if (r > 0) printf ", by processor time %.1f %%; refused: p99 %.1f ms", 100 * us * n * 1000 / ns, r
            print ""}'
done
