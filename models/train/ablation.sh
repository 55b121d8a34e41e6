#!/usr/bin/env bash
# Trains every row of the paper's ablation table with one recipe, each with several seeds, and prints the table.
#   usage: models/train/ablation.sh NETWORK DATA FOLDER [options] [-- OPTIONS OF hwgq train...]
#     --seeds "1 2"     seeds of every row (default)
#     --rows "A B ..."  only these rows, by their names (--list prints all)
#     --hwgq PROGRAM    default: build/release/hwgq, else the one on the path
#     --table           train nothing, print what is there
#     --list            names of the rows and their options
# Example: models/train/ablation.sh vgg-small cifar10-jpeg.tar.xz ablation -- --width 0.25 --epochs 20
#
# FOLDER gets ROW-SEED.hwgq, its log and its checkpoint. Run again with the same arguments it goes on where it stopped: finished
# models are skipped, interrupted ones continue from their checkpoints. Accuracy is that after the last epoch, not the best one.
set -u

# Name; title; options of hwgq train beside those that all rows share.
rows='
float             | float weights, ReLU                                  | --weights float --levels relu
float-hwgq        | float weights, 2-bit uniform                         | --weights float
bw                | binary weights (BW), ReLU                            | --levels relu
bw-sign           | BW + sign, hard tanh                                 | --levels sign
hwgq-vanilla      | BW + 2-bit uniform (3 levels), vanilla ReLU          | --backward vanilla
hwgq-clipped      | BW + 2-bit uniform (3 levels), clipped ReLU          | --backward clipped
hwgq-log-tailed   | BW + 2-bit uniform (3 levels), log-tailed ReLU       | --backward log-tailed
levels-1          | BW + 1-bit (1 level)                                 | --bits 1
levels-2-uniform  | BW + 2 levels, uniform                               | --level-count 2
levels-2-free     | BW + 2 levels, non-uniform                           | --level-count 2 --levels free
levels-3-free     | BW + 2-bit non-uniform (3 levels)                    | --level-count 3 --levels free
levels-7          | BW + 3-bit uniform (7 levels)                        | --bits 3
levels-7-free     | BW + 3-bit non-uniform (7 levels)                    | --bits 3 --levels free
levels-15         | BW + 4-bit uniform (15 levels)                       | --bits 4
levels-15-free    | BW + 4-bit non-uniform (15 levels)                   | --bits 4 --levels free
half-2-bit        | BW + 2-bit uniform, zero up to half a step           | --zero half
half-2-bit-0.538  | the same with the step 0.538                         | --zero half --step 0.538
'

fail() { printf 'ablation.sh: %s\n' "$*" >&2; exit 2; }
trim() { local text=$1; text=${text#"${text%%[![:space:]]*}"}; printf '%s' "${text%"${text##*[![:space:]]}"}"; }
each_row() { # FUNCTION ARGS...: FUNCTION NAME TITLE OPTIONS ARGS...
  local name title options function=$1
  shift
  while IFS='|' read -r name title options; do
    name=$(trim "$name")
    [ -n "$name" ] || continue
    [ -z "$only" ] || case " $only " in *" $name "*) ;; *) continue ;; esac
    "$function" "$name" "$(trim "$title")" "$(trim "$options")" "$@" || return
  done <<<"$rows"
}

positional=() seeds='1 2' only='' table=false list=false hwgq='' shared=()
while [ $# -gt 0 ]; do
  case $1 in
  --seeds | --rows | --hwgq)
    [ $# -gt 1 ] || fail "$1 needs a value"
    case $1 in --seeds) seeds=$2 ;; --rows) only=$2 ;; *) hwgq=$2 ;; esac
    shift ;;
  --table) table=true ;;
  --list) list=true ;;
  --help | -h) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
  --) shift; shared=("$@"); break ;;
  -*) fail "there is no option $1: --help lists them" ;;
  *) positional+=("$1") ;;
  esac
  shift
done

show_row() { printf '%-18s %-52s %s\n' "$1" "$2" "$3"; }
if $list; then each_row show_row; exit 0; fi
[ ${#positional[@]} -eq 3 ] || fail 'give NETWORK, DATA and FOLDER: --help says more'
network=${positional[0]} data=${positional[1]} folder=${positional[2]}
for row in $only; do
  each_row echo | grep -q "^$row " || fail "there is no row $row: --list shows all"
done
$table || [ -e "$data" ] || fail "there is no $data"
[ -n "$hwgq" ] || hwgq=$(dirname "$0")/../../build/release/hwgq
[ -x "$hwgq" ] || hwgq=$(command -v "$hwgq" || command -v hwgq) || fail 'no hwgq program: run make, or give --hwgq'
mkdir -p "$folder" || exit 1

# One model. What it is trained with is kept beside it: other arguments in the same folder are refused, not mixed.
train_one() { # BASE SEED OPTIONS...
  local base=$1 seed=$2
  shift 2
  local recipe="$network $data --seed $seed $*"
  if [ -e "$base.recipe" ]; then
    [ "$(cat "$base.recipe")" = "$recipe" ] || fail "$base was begun with other arguments: $(cat "$base.recipe")"
  else
    printf '%s\n' "$recipe" >"$base.recipe"
  fi
  [ ! -e "$base.hwgq" ] || return 0
  if [ -e "$base.hwgq.checkpoint" ]; then
    "$hwgq" train --resume "$base.hwgq.checkpoint" -o "$base.hwgq" --log "$base.log" >>"$base.out" 2>&1
  else
    "$hwgq" train "$network" "$data" -o "$base.hwgq" --log "$base.log" --seed "$seed" "$@" >"$base.out" 2>&1
  fi
}

train_row() { # NAME TITLE OPTIONS SEED
  local base=$folder/$1-$4 status options
  read -ra options <<<"$3"
  train_one "$base" "$4" ${shared[@]+"${shared[@]}"} ${options[@]+"${options[@]}"}
  status=$?
  [ "$status" -ne 130 ] || exit 130
  if [ "$status" -ne 0 ]; then
    printf 'ablation.sh: %s with seed %s failed:\n' "$1" "$4" >&2
    tail -2 "$base.out" >&2
    # Nothing was trained: other arguments may be tried.
    [ -e "$base.hwgq.checkpoint" ] || rm -f "$base.recipe" "$base.log" "$base.out"
    failed=1
    return 0
  fi
  printf '%s seed %s: %s %%\n' "$1" "$4" "$(accuracy "$base")"
}

accuracy() { # BASE: percent after the last epoch
  tail -1 "$1.log" 2>/dev/null | sed -n 's/.*"test_accuracy":\([0-9.e-]*\).*/\1/p' | awk '{ printf "%.2f", 100 * $1 }'
}

print_row() { # NAME TITLE OPTIONS
  local seed values=''
  for seed in $seeds; do
    [ -e "$folder/$1-$seed.hwgq" ] && values="$values $(accuracy "$folder/$1-$seed")"
  done
  awk -v title="$2" -v values="$values" 'BEGIN {
    n = split(values, v, " ")
    if (n == 0) { printf "| %-52s | %7s | %15s | %5d |\n", title, "-", "-", 0; exit }
    low = high = v[1]
    for (i = 1; i <= n; i++) { sum += v[i]; if (v[i] + 0 < low + 0) low = v[i]; if (v[i] + 0 > high + 0) high = v[i] }
    printf "| %-52s | %7.2f | %6.2f - %6.2f | %5d |\n", title, sum / n, low, high, n
  }'
}

failed=0
if ! $table; then
  # Seed by seed: a table of all rows is there as early as can be.
  for seed in $seeds; do each_row train_row "$seed"; done
fi
printf '\n%s on %s, hwgq train%s, top-1 %% on the test images after the last epoch\n\n' "$network" "$(basename "$data")" "${shared[*]:+ ${shared[*]}}"
printf '| %-52s | %7s | %15s | %5s |\n' 'hidden layers' mean range seeds
printf '|%s|%s:|%s:|%s:|\n' "$(printf '%54s' | tr ' ' -)" -------- ---------------- ------
each_row print_row
exit $failed
