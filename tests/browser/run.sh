#!/usr/bin/env bash
# The page in headless Chromium: tests/browser/run.sh BUILD_DIR (default build/release). Ends with 'N passed, N failed'.
# With picture.mjs as the second argument it makes docs/page.png instead.
# Fetches what it needs: Debian's chromium (and nodejs with npm, where there are none), and the packages of package-lock.json from
# npm into build/tools/browser. Where they cannot be had nothing is tested, and said so.
set -eu
cd "$(dirname "$0")/../.."
build=${1:-build/release}
[ -x "$build/hwgqd" ] || {
  echo "tests/browser/run.sh: $build/hwgqd is missing: run make BUILD=$build first" >&2
  exit 2
}
skip() {
  echo "SKIPPED: the page in a browser: $1"
  echo "0 passed, 0 failed, 1 skipped"
  exit 0
}
missing=
command -v chromium >/dev/null || missing="$missing chromium"
command -v node >/dev/null || missing="$missing nodejs"
command -v npm >/dev/null || missing="$missing npm"
if [ -n "$missing" ]; then
  sudo=
  [ "$(id -u)" -eq 0 ] || sudo="sudo -n"
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086
  { timeout 240 $sudo apt-get install -y -qq --no-install-recommends $missing ||
    { timeout 60 $sudo apt-get update -qq && timeout 240 $sudo apt-get install -y -qq --no-install-recommends $missing; }; } \
    >build/tools-browser.log 2>&1 || skip "cannot install$missing (apt-get; see build/tools-browser.log)"
fi
tools=build/tools/browser
if ! cmp -s tests/browser/package-lock.json "$tools/installed"; then
  rm -rf "$tools"
  mkdir -p "$tools"
  cp tests/browser/package.json tests/browser/package-lock.json "$tools"
  (cd "$tools" && timeout 180 npm ci --no-audit --no-fund --ignore-scripts) >build/tools-browser.log 2>&1 ||
    skip "npm cannot fetch playwright-core and axe-core (see build/tools-browser.log)"
  cp tests/browser/package-lock.json "$tools/installed"
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
node "tests/browser/${2:-suite.mjs}" "$build" "$folder" "$tools/node_modules"
