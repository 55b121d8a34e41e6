#!/usr/bin/env bash
# Prints the speed of the kernels, of every shipped network and of full-width vgg-small on this machine.
#   usage: tests/bench/run.sh [BUILD_DIRECTORY]
set -eu
cd "$(dirname "$0")/../.."
build=${1:-build/release}

grep -m1 'model name' /proc/cpuinfo | sed 's/.*: //'
"$build/tests/bench/bench_kernels"
for model in models/zoo/*.hwgq; do
  [ -e "$model" ] || continue
  printf '\n$ hwgq bench %s\n' "$model"
  "$build/hwgq" bench "$model"
done
printf '\n$ hwgq bench --network vgg-small --width 1\n'
"$build/hwgq" bench --network vgg-small --width 1
