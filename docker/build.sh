#!/bin/sh
# The steps of docker/Dockerfile that build, on Debian, for its own or the other of the two architectures. For the other one Debian's
# cross compiler is used: nothing is emulated.
#   build.sh packages [ARCHITECTURE]        installs what the build needs; amd64 or arm64, as Docker and Debian call them
#   build.sh image [ARCHITECTURE] FOLDER    compiles hwgqd and puts the image's files into FOLDER
set -eu
step=$1
native=$(dpkg --print-architecture)
architecture=${2:-$native} # Docker without BuildKit does not tell it
case $architecture in
amd64) machine=x86_64-linux-gnu compiler=gcc-x86-64-linux-gnu ;;
arm64) machine=aarch64-linux-gnu compiler=gcc-aarch64-linux-gnu ;;
*) echo "build.sh: $architecture: hwgqd has kernels for amd64 and arm64" >&2 && exit 2 ;;
esac

packages() {
  # OpenBLAS speeds up training, which the image does not do.
  wanted=$(config/install-packages.sh --list build | grep -v openblas)
  if [ "$architecture" != "$native" ]; then
    dpkg --add-architecture "$architecture"
    wanted="make $compiler $(echo "$wanted" | sed -n "s/^lib.*-dev$/&:$architecture/p")"
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  # shellcheck disable=SC2086
  apt-get install -y -qq --no-install-recommends $wanted python3-minimal libpython3-stdlib >/dev/null
}

image() {
  # Sections of their own let the linker drop the functions that the daemon does not call.
  make -j"$(nproc)" BUILD=build/image CC=$machine-gcc AR=$machine-ar CFLAGS='-O3 -ffunction-sections -fdata-sections' \
    LDFLAGS=-Wl,--gc-sections build/image/hwgqd
  folder=$1 share=$1/usr/local/share/hwgqd
  mkdir -p "$folder/usr/local/bin" "$share/config" "$share/models/zoo"
  $machine-strip -o "$folder/usr/local/bin/hwgqd" build/image/hwgqd
  cp config/hwgqd.json config/hwgqd.schema.json "$share/config"
  cp models/zoo/*.hwgq models/zoo/*.md models/zoo/*.labels "$share/models/zoo"
  cp LICENSE "$share"
  python3 docker/root.py "$folder" "$machine" "$architecture"
}

case $step in
packages) packages ;;
image) image "$3" ;;
esac
