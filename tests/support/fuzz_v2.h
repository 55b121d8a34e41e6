/* What must hold for every body of an inference request, shared by its two fuzz programs. */
#ifndef FUZZ_V2_H
#define FUZZ_V2_H

#include "tests/support/fuzz.h"

/* Parses a body whose first json_length bytes are JSON, reads every image of its tensor and writes a reply. NULL, or what is
 * wrong. */
const char *fuzz_v2_check(const uint8_t *bytes, size_t length, size_t json_length, bool *accepted);

#endif
