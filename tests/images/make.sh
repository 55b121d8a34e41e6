#!/bin/sh
# Makes the JPEG files in this folder again, with libjpeg-turbo. They are checked in: tests do not need this script.
set -eu
cd "$(dirname "$0")"
program=$(mktemp)
trap 'rm -f "$program"' EXIT
cc -std=c11 -Wall -Wextra -o "$program" make.c -ljpeg -lm
"$program" .
