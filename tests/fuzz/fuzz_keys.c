/* The text of strangers that decides who may do what: the keys file, trusted proxies and X-Forwarded-For, X-Request-Timeout.
 * The first byte of an input says which. What is accepted has possible values, and what is written out again reads back the
 * same. */
#include "server/access.h"
#include "server/auth.h"
#include "tests/support/fuzz.h"

#include <stdlib.h>
#include <string.h>

static const char *const seeds[] = {
    "kone admin sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff requests_per_minute=60 burst=5\n"
    "# comment\n\ntwo inference sha256:10112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF concurrency=0\r\n",
    "kthree inference sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff requests_per_minute=100000000 # "
    "x",
    "p127.0.0.1, 10.0.0.0/8,fd00::/8 , ::1,192.0.2.1/32",
    "f198.51.100.1, 192.0.2.1:80 , [2001:db8::1]:443,10.1.2.3",
    "f2001:db8::1, ::ffff:10.0.0.1, unknown",
    "t1.5s",
    "t 250 ms",
    "t0.000000001",
};

static bool make_seed(int index, struct fuzz_buffer *buffer) {
  if (index >= (int)(sizeof seeds / sizeof seeds[0])) return false;
  fuzz_set(buffer, seeds[index], strlen(seeds[index]));
  return true;
}

static void write_key(struct text *text, const struct auth_key *key) {
  text_printf(text, "%s %s sha256:", key->name, auth_rights_name(key->rights));
  for (int i = 0; i < AUTH_HASH_BYTES; i++) text_printf(text, "%02x", key->hash[i]);
  if (key->rule.per_minute >= 0) text_printf(text, " requests_per_minute=%lld", (long long)key->rule.per_minute);
  if (key->rule.burst >= 0) text_printf(text, " burst=%lld", (long long)key->rule.burst);
  if (key->rule.concurrency >= 0) text_printf(text, " concurrency=%lld", (long long)key->rule.concurrency);
  text_puts(text, "\n");
}

static const char *check_again(const struct auth_keys *keys, const struct text *text) {
  struct auth_keys again;
  const char *problem = NULL;
  enum hwgq_status status = auth_parse(text->data ? text->data : "", text->length, "again", &again, NULL);
  if (status || again.count != keys->count) problem = "what was accepted does not read back";
  for (int i = 0; i < keys->count && !problem; i++) {
    const struct auth_key *a = &keys->keys[i], *b = &again.keys[i];
    if (strcmp(a->name, b->name) != 0 || a->rights != b->rights || memcmp(a->hash, b->hash, AUTH_HASH_BYTES) != 0 ||
        memcmp(&a->rule, &b->rule, sizeof a->rule) != 0) {
      problem = "a key reads back as another";
    }
  }
  auth_keys_release(&again);
  return problem;
}

static const char *check_keys(const char *bytes, size_t length, bool *accepted) {
  struct auth_keys keys;
  struct hwgq_error error = {{0}};
  struct text text = {0};
  const char *problem = NULL;
  enum hwgq_status status = auth_parse(bytes, length, "keys", &keys, &error);
  *accepted = !status;
  if (status && strncmp(error.message, "keys:", 5) != 0) problem = "a message without file and line";
  for (int i = 0; i < keys.count && !problem; i++) {
    const struct auth_key *key = &keys.keys[i];
    if (!config_name_valid(key->name)) problem = "an impossible name";
    if (key->rights != AUTH_INFERENCE && key->rights != AUTH_ADMIN) problem = "impossible rights";
    if (key->rule.per_minute > 100000000 || key->rule.burst > 1000000 || key->rule.concurrency > 1000000)
      problem = "an impossible limit";
    write_key(&text, key);
  }
  if (!status && !problem) problem = check_again(&keys, &text);
  auth_keys_release(&keys);
  text_release(&text);
  return problem;
}

static const char *check_networks(const char *string, bool *accepted) {
  struct limits_networks networks;
  struct limits_address any = {{0}};
  *accepted = limits_networks_parse(string, &networks, NULL) == HWGQ_OK;
  if (networks.count > LIMITS_MAX_NETWORKS) return "too many networks";
  for (int i = 0; i < networks.count && *accepted; i++) {
    if (networks.items[i].bits < 0 || networks.items[i].bits > 128) return "an impossible network";
    if (!limits_networks_contain(&networks, &networks.items[i].address)) return "a network without its own address";
  }
  limits_networks_contain(&networks, &any);
  return NULL;
}

static const char *check_forwarded(const char *string, bool *accepted) {
  struct limits_networks trusted;
  struct limits_address proxy, client;
  limits_networks_parse("10.0.0.0/8, fd00::/8", &trusted, NULL);
  limits_address_parse("10.0.0.1", 8, &proxy);
  client = proxy;
  limits_address_forwarded(&trusted, string, &client);
  *accepted = memcmp(&client, &proxy, sizeof client) != 0;
  /* from a client that is no proxy nothing is believed */
  struct limits_address stranger = {{1}}, same = stranger;
  limits_address_forwarded(&trusted, string, &same);
  return memcmp(&same, &stranger, sizeof same) != 0 ? "a stranger's header was believed" : NULL;
}

static const char *check(const uint8_t *bytes, size_t length, bool *accepted) {
  if (length == 0) return NULL;
  if (bytes[0] == 'k') return check_keys((const char *)bytes + 1, length - 1, accepted);
  char *string = malloc(length);
  if (!string) return NULL;
  memcpy(string, bytes + 1, length - 1);
  string[length - 1] = 0;
  const char *problem = NULL;
  if (bytes[0] == 'p') {
    problem = check_networks(string, accepted);
  } else if (bytes[0] == 'f') {
    problem = check_forwarded(string, accepted);
  } else {
    uint64_t timeout = access_timeout(string);
    *accepted = timeout > 0;
    if (timeout > UINT64_C(1000000000) * 1000000000) problem = "an impossible time";
  }
  free(string);
  return problem;
}

int main(int argc, char **argv) {
  const struct fuzz_target target = {.name = "keys", .runs = 200000, .make_seed = make_seed, .check = check};
  return fuzz_main(argc, argv, &target);
}
