#!/bin/sh
# Makes the files in this folder again: JPEG with libjpeg-turbo, PNG and WebP with python3 and python3-pil. They are checked in:
# tests do not need this script.
set -eu
cd "$(dirname "$0")"
program=$(mktemp)
trap 'rm -f "$program"' EXIT
cc -std=c11 -Wall -Wextra -o "$program" make.c -ljpeg -lm
"$program" .
python3 make.py .
