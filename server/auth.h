/* API keys. A key is 256 random bits in text; the file keeps its SHA-256, so who reads the file cannot use what stands there. A
 * slow hash, as for passwords, would add nothing: nobody guesses 256 random bits, and one fast hash per request costs a
 * microsecond.
 *
 * One key per line; '#' begins a comment:
 *   NAME RIGHTS sha256:64_HEX_DIGITS [requests_per_minute=N] [burst=N] [concurrency=N]
 * RIGHTS is inference, or admin, which includes inference. The limits replace those of the configuration for this key; 0 is no
 * limit. */
#ifndef AUTH_H
#define AUTH_H

#include "engine/hwgq.h"
#include "server/limits.h"

enum { AUTH_MAX_NAME = 64, AUTH_MAX_KEYS = 4096, AUTH_MAX_FILE_BYTES = 1 << 20, AUTH_HASH_BYTES = 32, AUTH_KEY_SIZE = 80 };

enum auth_rights { AUTH_NONE, AUTH_INFERENCE, AUTH_ADMIN };

struct auth_key {
  char name[AUTH_MAX_NAME + 1];
  enum auth_rights rights;
  uint8_t hash[AUTH_HASH_BYTES];
  struct limits_rule rule; /* -1 where the configuration's limit holds */
};

struct auth_keys {
  struct auth_key *keys;
  int count;
};

const char *auth_rights_name(enum auth_rights rights);
/* Messages begin with "FILE:LINE: ". Free with auth_keys_release, also after a failure. */
enum hwgq_status auth_parse(const char *bytes, size_t length, const char *file, struct auth_keys *keys,
                            struct hwgq_error *error);
void auth_keys_release(struct auth_keys *keys);

/* The keys that are in force. Any number of threads may ask while they are replaced. */
struct auth;
struct auth *auth_create(void); /* NULL: no memory */
void auth_destroy(struct auth *auth);
/* Reads the file and puts its keys in force; NULL: no keys, as at the beginning. A failure changes nothing. */
enum hwgq_status auth_load(struct auth *auth, const char *path, struct hwgq_error *error);
/* Whether a keys file is in force: without one, inference is open and administration closed. */
bool auth_enabled(struct auth *auth);
/* Copies the key whose text this is; false: it is none. Takes the same time for every text of the same length. */
bool auth_find(struct auth *auth, const char *text, struct auth_key *key);

/* Makes a key and appends its line to the file, which is made (mode 0600) when it is missing. `key` gets its text, which stands
 * nowhere else. */
enum hwgq_status auth_add(const char *path, const char *name, enum auth_rights rights, char key[AUTH_KEY_SIZE],
                          struct hwgq_error *error);

#endif
