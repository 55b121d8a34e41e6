#!/usr/bin/env bash
# Builds with gcc, clang, ASan+UBSan, TSan and for aarch64, and runs on each what may behave differently there: with gcc everything, with
# clang the unit programs, with ASan all but what runs other servers and browsers, with TSan what starts threads, on aarch64 the engine.
# Ends with 'N passed, N failed, N skipped'.
#   usage: tests/run.sh [gcc|arm64|clang|asan|tsan|format]...      default: all of them
# Unit programs (Check) and fuzz, tool and http suites each print their own counts; this adds them up. No test says how fast anything
# must be (tests/bench does): whatever one waits for ends the waiting when it comes.
set -u
export CK_DEFAULT_TIMEOUT=60 CK_TIMEOUT_MULTIPLIER=5 # seconds a Check test may take, or what it says, times 5: the machine may be busy
cd "$(dirname "$0")/.." || exit 1
jobs=$(nproc)
logs=build/test-logs
mkdir -p "$logs"
counts=$logs/counts
: >"$counts"

note() { printf '%s\n' "$*"; }
count() { printf '%s\n' "$*" >>"$counts"; } # PASSED FAILED SKIPPED NAME LOG: of one suite

# Two suites at a time: most use one core, and some mostly wait. What they print comes when they end, whole.
slots=2
slot() { # COUNT: waits until less than so many suites run
  while [ "$(jobs -rp | wc -l)" -ge "$1" ]; do wait -n; done
}

# Whoever stops this stops the suites, too.
# shellcheck disable=SC2154
trap 'for job in $(jobs -p); do pkill -P "$job"; done 2>/dev/null; exit 130' INT TERM

# What failed, as each kind of suite says it, with what follows: Python's, bash's and node's suites, Check, fuzz programs, sanitizers.
reasons() { # LOG LINES
  grep -aE -A7 '^ *FAILED|:[0-9]+:[FE]:|^run [0-9]+ \(--seed|ERROR: (Address|Leak|Thread)|WARNING: Thread|runtime error:|^Traceback|error:' "$1" |
    cut -c1-600 | head -"$2" | sed 's/^/       | /'
}

# run NAME COMMAND...: runs one suite, adds its counts, shows its output only when something failed.
begun=()
run() {
  slot "$slots"
  begun+=("$1")
  run_suite "$@" &
}
run_suite() {
  local name=$1 log status line detail='' p=0 f=0 s=0 start=$SECONDS
  shift
  log=$logs/$(printf '%s' "$name" | tr '/ ' '__').log
  TIMEFORMAT='%U %S'
  # shellcheck disable=SC2086
  { time timeout -k 20 600 $launcher "$@" >"$log" 2>&1 </dev/null; } 2>"$log.cpu"
  status=$?
  case $status in 124 | 137) echo "FAILED: ended by a signal after $((SECONDS - start)) s; 600 s are allowed" >>"$log" ;; esac
  line=$(grep -aE '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -1)
  if [ -n "$line" ]; then
    read -r p _ f _ s _ <<<"$(printf '%s' "$line" | tr -d ',')"
  else
    line=$(grep -aE '^[0-9]+%: Checks: ' "$log" | tail -1)
    if [ -n "$line" ]; then
      read -r p f s <<<"$(printf '%s' "$line" | sed -E 's/.*Checks: ([0-9]+), Failures: ([0-9]+), Errors: ([0-9]+).*/\1 \2 \3/')"
      f=$((f + s)) p=$((p - f)) s=0
    else
      f=1
    fi
  fi
  if [ "$status" -ne 0 ] && [ "$f" -eq 0 ]; then f=1; fi
  # A fuzz program counts its executions; here it is one test.
  case $name in *fuzz_*)
    detail=" ($((p + f)) executions)" f=$((f > 0)) p=$((1 - f)) ;;
  esac
  [ $((p + f + ${s:-0})) -gt 0 ] || f=1
  count "$p $f ${s:-0} $name $log"
  {
    flock 9
    printf '%-6s %-44s %4d passed %3d failed %3d s %5.1f s CPU%s\n' "$([ "$f" -eq 0 ] && echo ok || echo FAILED)" "$name" "$p" \
      "$f" $((SECONDS - start)) "$(awk 'END { print $1 + $2 }' "$log.cpu")" "$detail"
    grep -aE '^(SKIPPED|skipped):' "$log" | sed 's/^/       /'
    [ "$f" -eq 0 ] || {
      note "       exit code $status; whole log: $log; what failed:"
      reasons "$log" 60
      note "       its last lines:"
      tail -30 "$log" | cut -c1-600 | sed 's/^/       | /'
    }
  } 9>>"$logs/lock"
}

# build NAME ARGS...: one failed test when it does not compile without warnings. One suite may go on meanwhile.
build() {
  local name=$1 log=$logs/build-$1.log start
  shift
  slot "$slots"
  start=$SECONDS
  if make -j"$jobs" "$@" >"$log" 2>&1; then
    count 1 0 0 "build $name" "$log"
    printf '%-6s %-44s %22s %3d s\n' ok "build $name" "" $((SECONDS - start))
    return 0
  fi
  count 0 1 0 "build $name" "$log"
  note "FAILED build $name"
  grep -E 'error|warning|\*\*\*' "$log" | head -40 | sed 's/^/       | /'
  return 1
}

unit() { # NAME BUILD_DIR PATTERN...: unit programs
  local program name=$1 dir=$2
  shift 2
  for program in $(programs "$dir" "$@"); do run "$name $(basename "$program")" "$program"; done
}
programs() { # BUILD_DIR PATTERN...: unit programs, as make and the shell know them
  local dir=$1 program
  shift
  for program in $(printf 'tests/unit/%s.c ' "$@"); do printf '%s\n' "$dir/${program%.c}"; done
}
fuzz() { # NAME BUILD_DIR
  local program
  for program in tests/fuzz/fuzz_*.c; do
    program=${program%.c}
    run "$1 $(basename "$program")" "$2/$program"
  done
}
scripts() { # NAME BUILD_DIR FOLDER...: suites that run the programs
  local name=$1 dir=$2 folder
  shift 2
  for folder in "$@"; do run "$name tests/$folder" "tests/$folder/run.sh" "$dir"; done
}

# The sanitizers' shadow memory does not fit kernels that randomize addresses widely: then run without randomization.
launcher=
fixed_addresses() {
  [ "$(cat /proc/sys/vm/mmap_rnd_bits 2>/dev/null || echo 28)" -gt 28 ] || return 0
  launcher="setarch $(uname -m) -R"
  $launcher true 2>/dev/null && return 0
  note "SKIPPED: sanitizers need 'sysctl vm.mmap_rnd_bits=28' here"
  count 0 0 1 sanitizers -
  return 1
}

# The suites that take longest, and those that mostly wait, first.
stage_gcc() {
  build gcc programs tests BUILD=build/release CC=gcc || return
  scripts gcc build/release deploy http browser zoo torch tool
  unit gcc build/release 'test_*'
  fuzz gcc build/release
}
# Cross-compiled and emulated: the engine, and the bits of scores on every kernel set of both architectures.
stage_arm64() {
  if [ "$(uname -m)" != x86_64 ]; then
    note "SKIPPED: arm64 is emulated on x86_64 only; on aarch64 the other stages test its kernels"
    count 0 0 1 arm64 -
    return
  fi
  local units=('test_kernels*' test_lookup test_first_conv test_sliced test_plan 'test_golden*')
  build arm64 arm64 ARM64="programs $(programs build/arm64 "${units[@]}" | tr '\n' ' ') build/arm64/tests/scores/scores" || return
  build scores build/release/hwgq build/release/tests/scores/scores BUILD=build/release CC=gcc || return
  run "arm64 tests/scores" tests/scores/run.sh build/release build/arm64
  launcher=tests/arm64/emulate.sh
  export HWGQ_QUICK=1
  unit arm64 build/arm64 "${units[@]}"
  unset HWGQ_QUICK
  launcher=
}
# The other compiler: what it compiles differently shows in the engine, the trainer and the daemon's parts. A quarter of the random
# rounds: the same ones have passed with gcc.
stage_clang() {
  build clang programs units BUILD=build/clang CC=clang CFLAGS=-O2 || return
  export HWGQ_QUICK=1
  unit clang build/clang 'test_*'
  unset HWGQ_QUICK
}
stage_asan() {
  export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
  build asan asan && fixed_addresses || return
  scripts asan build/asan http tool
  export HWGQ_QUICK=1
  unit asan build/asan 'test_*'
  unset HWGQ_QUICK
  fuzz asan build/asan
}
# Whatever starts threads: of some programs only one group of tests, "threads".
stage_tsan() {
  local units=(test_plan test_team test_image_limits 'test_server_*' 'test_train*')
  export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
  build tsan tsan TSAN="programs $(programs build/tsan "${units[@]}" | tr '\n' ' ')" && fixed_addresses || return
  export SUITES="classify life load manage stats" # many requests at once, and networks that change meanwhile
  scripts tsan build/tsan http
  unset SUITES
  export HWGQ_QUICK=1
  CK_RUN_CASE=threads unit tsan build/tsan "${units[@]:0:3}"
  unit tsan build/tsan "${units[@]:3}"
  unset HWGQ_QUICK
}
stage_format() {
  local bad
  bad=$(find engine models server tests -name '*.[ch]' -exec clang-format --dry-run -Werror {} + 2>&1 | grep -oE '^[^:]+\.[ch]' | sort -u)
  if [ -z "$bad" ]; then
    count 1 0 0 clang-format -
    note "ok     clang-format"
  else
    count 0 1 0 clang-format -
    note "FAILED clang-format (run 'make format'): $bad"
  fi
}

[ $# -gt 0 ] || set -- format gcc arm64 clang asan tsan
for stage in "$@"; do
  case $stage in
  gcc | arm64 | clang | asan | tsan | format) ;;
  *)
    echo "tests/run.sh: unknown stage '$stage' (gcc, arm64, clang, asan, tsan, format)" >&2
    exit 2
    ;;
  esac
done

for stage in "$@"; do "stage_$stage"; done
slot 1 # all have ended
for name in "${begun[@]}"; do # one that was killed with its shell has left no counts
  grep -qF " $name " "$counts" || {
    count 0 1 0 "$name" -
    note "FAILED $name: it has disappeared"
  }
done

read -r passed failed skipped <<<"$(awk '{ p += $1; f += $2; s += $3 } END { print p + 0, f + 0, s + 0 }' "$counts")"
if [ "$failed" -gt 0 ]; then # once more, in short, where nobody overlooks it
  note ""
  awk '$2 > 0' "$counts" | while read -r _ f _ name; do
    note "FAILED ${name% *}: $f, log ${name##* }"
    [ ! -f "${name##* }" ] || reasons "${name##* }" 12
  done
fi
note ""
if [ "$skipped" -gt 0 ]; then note "$passed passed, $failed failed, $skipped skipped"; else note "$passed passed, $failed failed"; fi
[ "$failed" -eq 0 ]
