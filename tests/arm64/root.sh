#!/bin/sh
# Debian's aarch64 libraries, headers and what they need at run time, unpacked into a folder. The system stays as it is: apt
# works on a state of its own, so no foreign architecture is added and no version is tied to the installed ones.
#   usage: tests/arm64/root.sh FOLDER      Does nothing when the folder is complete.
set -eu

packages="libjansson-dev libjansson4 libxxhash-dev libxxhash0 libjpeg62-turbo-dev libjpeg62-turbo
  libspng-dev libspng0 libwebp-dev libwebp7 libseccomp-dev libseccomp2
  libarchive-dev libarchive13 libacl1 libbz2-1.0 liblz4-1 liblzma5 libnettle8 libxml2 libicu72 libstdc++6 libgcc-s1 zlib1g libzstd1
  libmicrohttpd-dev libmicrohttpd12 libgnutls28-dev libgnutls30 libp11-kit0 libidn2-0 libunistring2 libtasn1-6 libhogweed6 libgmp10 libffi8
  check libsubunit-dev libsubunit0"

root=$1
[ "$(cat "$root/complete" 2>/dev/null)" = "$packages" ] && exit 0
for program in apt-get dpkg-deb aarch64-linux-gnu-gcc; do
  command -v $program >/dev/null || {
    echo "root.sh: $program is missing: run config/install-packages.sh arm64" >&2
    exit 1
  }
done

rm -rf "$root"
mkdir -p "$root/apt/lists/partial" "$root/apt/archives/partial"
root=$(cd "$root" && pwd)
: >"$root/apt/status"
apt() {
  apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o "Dir::State=$root/apt" -o "Dir::Cache=$root/apt" \
    -o "Dir::State::status=$root/apt/status" -o Acquire::Languages=none -o "APT::Sandbox::User=$(id -un)" "$@"
}
apt update
# shellcheck disable=SC2086
(cd "$root/apt/archives" && apt download $packages)
for package in "$root"/apt/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
rm -rf "$root/apt"
printf '%s\n' "$packages" >"$root/complete"
