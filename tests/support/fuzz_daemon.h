/* The whole daemon inside a fuzz program, so that a sanitizer sees all of it, and a client that talks to it. */
#ifndef FUZZ_DAEMON_H
#define FUZZ_DAEMON_H

#include "tests/support/fuzz.h"

enum { FUZZ_REPLY_BYTES = 1 << 16 };

/* Runs the target while a daemon serves one small network, and ends the daemon: the exit status of the program. */
int fuzz_daemon_main(int argc, char **argv, const struct fuzz_target *target);

/* Sends the bytes on a new connection and reads until the daemon closes it: reply[FUZZ_REPLY_BYTES] gets what came, with a zero
 * byte behind it, and *received its length. After so many ms of silence this side closes its half, at which the daemon waits
 * for no more. NULL, or what is wrong already. */
const char *fuzz_daemon_ask(const uint8_t *bytes, size_t length, int patience_ms, char *reply, size_t *received);

#endif
