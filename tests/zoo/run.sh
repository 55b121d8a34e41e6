#!/bin/sh
# The shipped networks: do they reach the figures on their cards, does the daemon answer as `hwgq eval` says, are the photographs
# recognised?   usage: tests/zoo/run.sh BUILD_DIR      Data that is not there is skipped, and said so.
cd "$(dirname "$0")/../.." && exec python3 tests/zoo/zoo.py "${1:-build/release}"
