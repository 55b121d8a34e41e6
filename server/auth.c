#include "server/auth.h"

#include "server/config.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static const char key_prefix[] = "hwgqd_"; /* shows secret scanners and people what it is */
static const char hash_prefix[] = "sha256:";
enum { MAX_KEY_LENGTH = 512, KEY_BYTES = 32 };

struct auth {
  pthread_rwlock_t lock;
  struct auth_keys keys;
  bool enabled;
};

const char *auth_rights_name(enum auth_rights rights) {
  return rights == AUTH_ADMIN ? "admin" : rights == AUTH_INFERENCE ? "inference" : "none";
}

/* ---- the file ----------------------------------------------------------------------------------------------------------- */

struct word {
  const char *text;
  size_t length;
};

struct line {
  const char *file;
  int number;
  struct word word; /* the current one; empty: no more */
  const char *rest, *end;
};

static enum hwgq_status fail_at(const struct line *line, struct hwgq_error *error, const char *what) {
  return hwgq_fail(error, HWGQ_ERROR_FORMAT, "%s:%d: %s", line->file, line->number, what);
}

static struct word next_word(struct line *line) {
  while (line->rest < line->end && strchr(" \t\r", *line->rest) && *line->rest) line->rest++;
  const char *start = line->rest;
  while (line->rest < line->end && (!*line->rest || !strchr(" \t\r", *line->rest))) line->rest++;
  line->word = (struct word){start, (size_t)(line->rest - start)};
  if (line->word.length && *start == '#') {
    line->word.length = 0;
    line->rest = line->end;
  }
  return line->word;
}

static bool word_is(struct word word, const char *text) {
  return word.length == strlen(text) && memcmp(word.text, text, word.length) == 0;
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool parse_hash(struct word word, uint8_t *hash) {
  size_t prefix = sizeof hash_prefix - 1;
  if (word.length != prefix + 2 * AUTH_HASH_BYTES || memcmp(word.text, hash_prefix, prefix) != 0) return false;
  for (size_t i = 0; i < AUTH_HASH_BYTES; i++) {
    int high = hex_digit(word.text[prefix + 2 * i]), low = hex_digit(word.text[prefix + 2 * i + 1]);
    if (high < 0 || low < 0) return false;
    hash[i] = (uint8_t)(high << 4 | low);
  }
  return true;
}

/* NAME=NUMBER */
static bool parse_limit(struct word word, struct limits_rule *rule) {
  const struct {
    const char *name;
    int64_t *field, most;
  } known[] = {{"requests_per_minute=", &rule->per_minute, 100000000},
               {"burst=", &rule->burst, 1000000},
               {"concurrency=", &rule->concurrency, 1000000}};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
    size_t name = strlen(known[i].name), digits = word.length - name;
    if (word.length <= name || memcmp(word.text, known[i].name, name) != 0) continue;
    int64_t value = 0;
    if (digits > 9 || *known[i].field >= 0) return false; /* too large, or a second time */
    for (size_t d = 0; d < digits; d++) {
      if (word.text[name + d] < '0' || word.text[name + d] > '9') return false;
      value = value * 10 + (word.text[name + d] - '0');
    }
    *known[i].field = value;
    return value <= known[i].most;
  }
  return false;
}

static enum hwgq_status parse_key(struct line *line, struct auth_key *key, struct hwgq_error *error) {
  *key = (struct auth_key){.rule = {-1, -1, -1}};
  if (line->word.length <= AUTH_MAX_NAME) memcpy(key->name, line->word.text, line->word.length);
  if (!config_name_valid(key->name) || strlen(key->name) != line->word.length) {
    return fail_at(line, error, "the name of a key has letters, digits, '.', '_' and '-', at most 64");
  }
  struct word rights = next_word(line);
  if (word_is(rights, "inference")) key->rights = AUTH_INFERENCE;
  if (word_is(rights, "admin")) key->rights = AUTH_ADMIN;
  if (!key->rights) return fail_at(line, error, "after the name must stand inference or admin");
  if (!parse_hash(next_word(line), key->hash)) {
    return fail_at(line, error, "after the rights must stand sha256: and 64 hexadecimal digits (hwgqd --add-key makes a line)");
  }
  while (next_word(line).length) {
    if (parse_limit(line->word, &key->rule)) continue;
    return fail_at(line, error, "after the hash may stand requests_per_minute=N, burst=N and concurrency=N, each once");
  }
  return HWGQ_OK;
}

static enum hwgq_status add_key(struct auth_keys *keys, struct line *line, struct hwgq_error *error) {
  struct auth_key key;
  enum hwgq_status status = parse_key(line, &key, error);
  if (status) return status;
  for (int i = 0; i < keys->count; i++) {
    if (strcmp(keys->keys[i].name, key.name) == 0) return fail_at(line, error, "this name stands in the file already");
    if (memcmp(keys->keys[i].hash, key.hash, AUTH_HASH_BYTES) == 0) {
      return fail_at(line, error, "this hash stands in the file already");
    }
  }
  if (keys->count == AUTH_MAX_KEYS) return fail_at(line, error, "there are more keys than 4096");
  if ((keys->count & (keys->count - 1)) == 0) { /* room for twice as many at every power of two */
    struct auth_key *more = realloc(keys->keys, (keys->count ? 2 * (size_t)keys->count : 1) * sizeof *more);
    if (!more) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "%s: no memory", line->file);
    keys->keys = more;
  }
  keys->keys[keys->count++] = key;
  return HWGQ_OK;
}

enum hwgq_status auth_parse(const char *bytes, size_t length, const char *file, struct auth_keys *keys,
                            struct hwgq_error *error) {
  enum hwgq_status status = HWGQ_OK;
  struct line line = {.file = file};
  *keys = (struct auth_keys){0};
  for (const char *start = bytes, *end = bytes + length; start < end && !status; start = line.end + 1) {
    const char *feed = memchr(start, '\n', (size_t)(end - start));
    line.number++;
    line.rest = start;
    line.end = feed ? feed : end;
    if (next_word(&line).length) status = add_key(keys, &line, error);
  }
  return status;
}

void auth_keys_release(struct auth_keys *keys) {
  free(keys->keys);
  *keys = (struct auth_keys){0};
}

static enum hwgq_status read_keys(int fd, const char *path, struct auth_keys *keys, struct hwgq_error *error) {
  struct stat info;
  *keys = (struct auth_keys){0};
  if (fstat(fd, &info)) return hwgq_fail(error, HWGQ_ERROR_IO, "keys_file: cannot read %s: %s", path, strerror(errno));
  if (info.st_mode & S_IWOTH) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "keys_file: everyone may write to %s: chmod o-w it", path);
  }
  char *bytes = malloc(AUTH_MAX_FILE_BYTES + 1);
  if (!bytes) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "keys_file: no memory");
  size_t length = 0;
  ssize_t count = 1;
  while (count > 0 && length <= AUTH_MAX_FILE_BYTES) {
    count = read(fd, bytes + length, AUTH_MAX_FILE_BYTES + 1 - length);
    if (count > 0) length += (size_t)count;
  }
  enum hwgq_status status;
  if (count < 0) {
    status = hwgq_fail(error, HWGQ_ERROR_IO, "keys_file: cannot read %s: %s", path, strerror(errno));
  } else if (length > AUTH_MAX_FILE_BYTES) {
    status = hwgq_fail(error, HWGQ_ERROR_LIMIT, "keys_file: %s has more than %d bytes", path, AUTH_MAX_FILE_BYTES);
  } else {
    status = auth_parse(bytes, length, path, keys, error);
  }
  free(bytes);
  return status;
}

/* ---- the keys in force -------------------------------------------------------------------------------------------------- */

struct auth *auth_create(void) {
  struct auth *auth = calloc(1, sizeof *auth);
  if (auth && pthread_rwlock_init(&auth->lock, NULL)) {
    free(auth);
    auth = NULL;
  }
  return auth;
}

void auth_destroy(struct auth *auth) {
  if (!auth) return;
  pthread_rwlock_destroy(&auth->lock);
  auth_keys_release(&auth->keys);
  free(auth);
}

enum hwgq_status auth_load(struct auth *auth, const char *path, struct hwgq_error *error) {
  struct auth_keys keys = {0};
  if (path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
      return hwgq_fail(error, HWGQ_ERROR_IO, "keys_file: cannot open %s: %s (hwgqd --add-key NAME makes it)", path,
                       strerror(errno));
    }
    enum hwgq_status status = read_keys(fd, path, &keys, error);
    close(fd);
    if (status) {
      auth_keys_release(&keys);
      return status;
    }
  }
  pthread_rwlock_wrlock(&auth->lock);
  struct auth_keys old = auth->keys;
  auth->keys = keys;
  auth->enabled = path != NULL;
  pthread_rwlock_unlock(&auth->lock);
  auth_keys_release(&old);
  return HWGQ_OK;
}

bool auth_enabled(struct auth *auth) {
  pthread_rwlock_rdlock(&auth->lock);
  bool enabled = auth->enabled;
  pthread_rwlock_unlock(&auth->lock);
  return enabled;
}

bool auth_find(struct auth *auth, const char *text, struct auth_key *key) {
  uint8_t hash[AUTH_HASH_BYTES];
  size_t length = strlen(text);
  int found = -1;
  if (length > MAX_KEY_LENGTH || gnutls_hash_fast(GNUTLS_DIG_SHA256, text, length, hash) < 0) return false;
  pthread_rwlock_rdlock(&auth->lock);
  /* All of them, whichever it is: how long it takes tells nothing. */
  for (int i = 0; i < auth->keys.count; i++) {
    if (gnutls_memcmp(auth->keys.keys[i].hash, hash, sizeof hash) == 0) found = i;
  }
  if (found >= 0) *key = auth->keys.keys[found];
  pthread_rwlock_unlock(&auth->lock);
  return found >= 0;
}

/* ---- a new key ---------------------------------------------------------------------------------------------------------- */

static void to_hex(const uint8_t *bytes, size_t count, char *text) {
  for (size_t i = 0; i < count; i++) snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

static bool write_all(int fd, const char *bytes, size_t length) {
  while (length) {
    ssize_t count = write(fd, bytes, length);
    if (count < 0) return false;
    bytes += count;
    length -= (size_t)count;
  }
  return true;
}

/* Appends to the open and locked file. */
static enum hwgq_status append(int fd, const char *path, const char *name, enum auth_rights rights, const char *key,
                               struct hwgq_error *error) {
  char line[AUTH_MAX_NAME + 160], hex[2 * AUTH_HASH_BYTES + 1], last = '\n';
  uint8_t hash[AUTH_HASH_BYTES];
  struct auth_keys keys;
  struct stat info;
  enum hwgq_status status = read_keys(fd, path, &keys, error);
  for (int i = 0; i < keys.count && !status; i++) {
    if (strcmp(keys.keys[i].name, name) != 0) continue;
    status = hwgq_fail(error, HWGQ_ERROR_INVALID, "%s has a key named '%s' already: take another name, or delete its line",
                       path, name);
  }
  auth_keys_release(&keys);
  if (status) return status;
  if (gnutls_hash_fast(GNUTLS_DIG_SHA256, key, strlen(key), hash) < 0) {
    return hwgq_fail(error, HWGQ_ERROR_IO, "GnuTLS cannot make a SHA-256");
  }
  to_hex(hash, sizeof hash, hex);
  if (fstat(fd, &info) == 0 && info.st_size > 0 && pread(fd, &last, 1, info.st_size - 1) != 1) last = '\n';
  snprintf(line, sizeof line, "%s%s %s %s%s\n", last == '\n' ? "" : "\n", name, auth_rights_name(rights), hash_prefix, hex);
  if (!write_all(fd, line, strlen(line)) || fsync(fd)) {
    return hwgq_fail(error, HWGQ_ERROR_IO, "cannot write to %s: %s", path, strerror(errno));
  }
  return HWGQ_OK;
}

enum hwgq_status auth_add(const char *path, const char *name, enum auth_rights rights, char key[AUTH_KEY_SIZE],
                          struct hwgq_error *error) {
  uint8_t random[KEY_BYTES];
  if (!config_name_valid(name)) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID,
                     "'%.60s' is no name for a key: use letters, digits, '.', '_' and '-', at most %d", name, AUTH_MAX_NAME);
  }
  if (gnutls_rnd(GNUTLS_RND_KEY, random, sizeof random) < 0) {
    return hwgq_fail(error, HWGQ_ERROR_IO, "the system gives no random numbers");
  }
  memcpy(key, key_prefix, sizeof key_prefix);
  to_hex(random, sizeof random, key + sizeof key_prefix - 1);
  int fd = open(path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return hwgq_fail(error, HWGQ_ERROR_IO, "cannot open %s: %s", path, strerror(errno));
  enum hwgq_status status = flock(fd, LOCK_EX) ? hwgq_fail(error, HWGQ_ERROR_IO, "cannot lock %s: %s", path, strerror(errno))
                                               : append(fd, path, name, rights, key, error);
  close(fd);
  return status;
}
