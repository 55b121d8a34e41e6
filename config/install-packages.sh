#!/bin/sh
# Installs the Debian packages that building (and, with `test`, testing) hwgqd needs and that are missing. Does nothing and needs
# no network or root when all are there. `test` also fetches Prometheus, nginx and HAProxy without installing them.
#   usage: install-packages.sh [--list] GROUP...      groups: build test arm64; --list prints their packages and installs nothing
set -eu

build="gcc make pkg-config libc6-dev libmicrohttpd-dev libgnutls28-dev libseccomp-dev libjansson-dev libjpeg62-turbo-dev libspng-dev libwebp-dev libxxhash-dev libarchive-dev libopenblas-dev"
test="clang libclang-rt-14-dev clang-format check curl openssl jq python3 python3-jsonschema python3-yaml dataset-fashion-mnist mandoc bash-completion
  libpcre2-8-0 libssl3 liblua5.3-0 libopentracing-c-wrapper0"
# To compile for aarch64 and to run that, on other machines than those; tests/arm64/root.sh lists the libraries.
arm64="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user"
[ "$(uname -m)" != aarch64 ] || arm64=

wanted= list=
[ "${1:-}" != --list ] || { list=yes && shift; }
for group in "$@"; do
  case $group in
  build) wanted="$wanted $build" ;;
  test) wanted="$wanted $test" ;;
  arm64) wanted="$wanted $arm64" ;;
  *)
    echo "install-packages.sh: unknown group '$group' (build, test, arm64)" >&2
    exit 2
    ;;
  esac
done
if [ -n "$list" ]; then
  for package in $wanted; do echo "$package"; done
  exit 0
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "This is not a Debian system: install the equivalents of these packages yourself, then run 'make' and 'tests/run.sh':" >&2
  for package in $wanted; do echo "  $package" >&2; done
  exit 1
fi

missing=
for package in $wanted; do
  # One status for each architecture: "ii ", "hi " when held.
  case $(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null) in
  *"i "*) ;;
  *) missing="$missing $package" ;;
  esac
done

# fetch PACKAGE PATH...: programs out of a package that would start a service when installed, into build/tools.
fetch() {
  package=$1
  shift
  needed=
  for path in "$@"; do
    [ -x "$tools/${path##*/}" ] || command -v "${path##*/}" >/dev/null || needed="$needed ./$path"
  done
  [ -n "$needed" ] || return 0
  folder=$(mktemp -d)
  echo "Fetching$needed (from the Debian package $package) into build/tools"
  # shellcheck disable=SC2086
  if { (cd "$folder" && apt-get download -qq "$package") || { $sudo apt-get -o DPkg::Lock::Timeout=300 update -qq && (cd "$folder" && apt-get download -qq "$package"); }; } \
    >/dev/null 2>&1 && dpkg-deb --fsys-tarfile "$folder/${package}"_*.deb | tar -x -C "$folder" $needed; then
    mkdir -p "$tools"
    for path in $needed; do mv "$folder/$path" "$tools/"; done
  else
    echo "install-packages.sh: $package could not be fetched: the tests that need it are skipped" >&2
  fi
  rm -rf "$folder"
}

sudo=
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null; then
    sudo=sudo
  elif [ -n "$missing" ]; then
    echo "Not root and no sudo here. As root, run:  apt-get install --no-install-recommends$missing" >&2
    exit 1
  fi
fi
export DEBIAN_FRONTEND=noninteractive
if [ -n "$missing" ]; then
  echo "Installing missing Debian packages:$missing"
  # The lists may be absent or old (fresh containers): try once with what is there, then refresh. Another apt may be at work.
  # shellcheck disable=SC2086
  $sudo apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends $missing >/dev/null 2>&1 || {
    $sudo apt-get -o DPkg::Lock::Timeout=300 update -qq
    $sudo apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends $missing
  }
fi
case " $* " in *" test "*)
  tools=$(dirname "$0")/../build/tools
  fetch prometheus usr/bin/promtool usr/bin/prometheus
  fetch nginx usr/sbin/nginx
  fetch haproxy usr/sbin/haproxy
  ;;
esac
