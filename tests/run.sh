#!/usr/bin/env bash
# Builds everything four times (gcc, clang, ASan+UBSan, TSan), runs every test on each, the engine's on aarch64 too, and ends with
# 'N passed, N failed, N skipped'.
#   usage: tests/run.sh [gcc|arm64|clang|asan|tsan|format]...      default: all of them
# Unit programs (Check) and fuzz, tool and http suites each print their own counts; this adds them up.
set -u
export CK_DEFAULT_TIMEOUT=300 # seconds a Check test may take: the machine may be busy
cd "$(dirname "$0")/.." || exit 1
jobs=$(nproc)
logs=build/test-logs
mkdir -p "$logs"
passed=0 failed=0 skipped=0

note() { printf '%s\n' "$*"; }

# run NAME COMMAND...: runs one suite, adds its counts, shows its output only when something failed.
run() {
  local name=$1 log start status line detail='' p=0 f=0 s=0
  shift
  log=$logs/$(printf '%s' "$name" | tr '/ ' '__').log
  start=$SECONDS
  timeout 600 $launcher "$@" >"$log" 2>&1 </dev/null
  status=$?
  line=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -1)
  if [ -n "$line" ]; then
    read -r p _ f _ s _ <<<"$(printf '%s' "$line" | tr -d ',')"
  else
    line=$(grep -E '^[0-9]+%: Checks: ' "$log" | tail -1)
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
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + ${s:-0}))
  printf '%-6s %-44s %4d passed %3d failed %3d s%s\n' "$([ "$f" -eq 0 ] && echo ok || echo FAILED)" "$name" "$p" \
    "$f" $((SECONDS - start)) "$detail"
  grep -E '^(SKIPPED|skipped):' "$log" | sed 's/^/       /'
  [ "$f" -eq 0 ] || { tail -60 "$log" | sed 's/^/       | /'; note "       whole log: $log"; }
}

# build NAME ARGS...: one failed test when it does not compile without warnings.
build() {
  local name=$1 log=$logs/build-$1.log start=$SECONDS
  shift
  if make -j"$jobs" "$@" >"$log" 2>&1; then
    passed=$((passed + 1))
    printf '%-6s %-44s %18s %3d s\n' ok "build $name" "" $((SECONDS - start))
    return 0
  fi
  failed=$((failed + 1))
  note "FAILED build $name"
  grep -E 'error|warning|\*\*\*' "$log" | head -40 | sed 's/^/       | /'
  return 1
}

unit() { # NAME BUILD_DIR PATTERN: unit programs
  local program
  for program in tests/unit/$3.c; do
    program=${program%.c}
    run "$1 $(basename "$program")" "$2/$program"
  done
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
  skipped=$((skipped + 1))
  return 1
}

stage_gcc() {
  build gcc programs tests BUILD=build/release CC=gcc || return
  unit gcc build/release 'test_*'
  fuzz gcc build/release
  scripts gcc build/release tool http zoo torch deploy browser
}
# Cross-compiled and emulated: the engine, and the bits of scores on every kernel set of both architectures.
stage_arm64() {
  if [ "$(uname -m)" != x86_64 ]; then
    note "SKIPPED: arm64 is emulated on x86_64 only; on aarch64 the other stages test its kernels"
    skipped=$((skipped + 1))
    return
  fi
  build arm64 arm64 || return
  launcher=tests/arm64/emulate.sh
  export HWGQ_QUICK=1
  unit arm64 build/arm64 'test_kernels*'
  unit arm64 build/arm64 'test_lookup'
  unit arm64 build/arm64 'test_first_conv'
  unit arm64 build/arm64 'test_sliced'
  unit arm64 build/arm64 'test_plan'
  unit arm64 build/arm64 'test_golden*'
  unset HWGQ_QUICK
  launcher=
  build scores build/release/hwgq build/release/tests/scores/scores BUILD=build/release CC=gcc || return
  run "arm64 tests/scores" tests/scores/run.sh build/release build/arm64
}
# The other compiler: what it compiles differently shows in the engine, the trainer and the daemon's parts.
stage_clang() {
  build clang programs tests BUILD=build/clang CC=clang || return
  unit clang build/clang 'test_*'
}
stage_asan() {
  export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
  build asan asan && fixed_addresses || return
  unit asan build/asan 'test_*'
  fuzz asan build/asan
  scripts asan build/asan tool http
}
# Whatever starts threads.
stage_tsan() {
  export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1
  build tsan tsan && fixed_addresses || return
  unit tsan build/tsan 'test_plan'
  unit tsan build/tsan 'test_team'
  unit tsan build/tsan 'test_image_limits'
  unit tsan build/tsan 'test_server_*'
  unit tsan build/tsan 'test_train*'
  export SUITES="classify life load manage stats" # many requests at once, and networks that change meanwhile
  scripts tsan build/tsan http
  unset SUITES
}
stage_format() {
  local bad
  bad=$(find engine models server tests -name '*.[ch]' -exec clang-format --dry-run -Werror {} + 2>&1 | grep -oE '^[^:]+\.[ch]' | sort -u)
  if [ -z "$bad" ]; then
    passed=$((passed + 1))
    note "ok     clang-format"
  else
    failed=$((failed + 1))
    note "FAILED clang-format (run 'make format'): $bad"
  fi
}

[ $# -gt 0 ] || set -- format gcc arm64 clang asan tsan
for stage in "$@"; do
  case $stage in
  gcc | arm64 | clang | asan | tsan | format) "stage_$stage" ;;
  *)
    echo "tests/run.sh: unknown stage '$stage' (gcc, arm64, clang, asan, tsan, format)" >&2
    exit 2
    ;;
  esac
done

note ""
if [ "$skipped" -gt 0 ]; then note "$passed passed, $failed failed, $skipped skipped"; else note "$passed passed, $failed failed"; fi
[ "$failed" -eq 0 ]
