#!/bin/sh
# Runs a program that `make arm64` built, in an emulator.   usage: tests/arm64/emulate.sh PROGRAM ARGUMENT...
root=$(dirname "$0")/../../build/arm64-root
qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static) || {
  echo "emulate.sh: install qemu-user" >&2
  exit 127
}
libraries=$root/lib/aarch64-linux-gnu:$root/usr/lib/aarch64-linux-gnu
exec "$qemu" -L /usr/aarch64-linux-gnu -E "LD_LIBRARY_PATH=$libraries" "$@"
