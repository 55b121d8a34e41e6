#include "server/limits_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}; /* before an IPv4 address */

static bool is_ipv4(const struct limits_address *address) {
  return memcmp(address->bytes, mapped, sizeof mapped) == 0;
}

/* Without a port. */
static bool parse_plain(const char *text, size_t length, struct limits_address *address) {
  char copy[INET6_ADDRSTRLEN];
  if (length == 0 || length >= sizeof copy) return false;
  memcpy(copy, text, length);
  copy[length] = 0;
  memcpy(address->bytes, mapped, sizeof mapped);
  if (inet_pton(AF_INET, copy, address->bytes + sizeof mapped) == 1) return true;
  return inet_pton(AF_INET6, copy, address->bytes) == 1;
}

bool limits_address_parse(const char *text, size_t length, struct limits_address *address) {
  if (length && text[0] == '[') {
    const char *end = memchr(text, ']', length);
    size_t rest = end ? length - (size_t)(end + 1 - text) : 0;
    return end && (rest == 0 || end[1] == ':') && parse_plain(text + 1, (size_t)(end - text - 1), address);
  }
  const char *colon = memchr(text, ':', length);
  bool port = colon && memchr(text, '.', (size_t)(colon - text)); /* otherwise the colons are those of IPv6 */
  return parse_plain(text, port ? (size_t)(colon - text) : length, address);
}

void limits_address_of(const struct sockaddr *socket_address, struct limits_address *address) {
  *address = (struct limits_address){{0}};
  if (!socket_address) return;
  if (socket_address->sa_family == AF_INET) {
    const struct sockaddr_in *ipv4 = (const struct sockaddr_in *)(const void *)socket_address;
    memcpy(address->bytes, mapped, sizeof mapped);
    memcpy(address->bytes + sizeof mapped, &ipv4->sin_addr, 4);
  } else if (socket_address->sa_family == AF_INET6) {
    memcpy(address->bytes, &((const struct sockaddr_in6 *)(const void *)socket_address)->sin6_addr, 16);
  }
}

static size_t trim(const char **text, size_t length) {
  while (length && (**text == ' ' || **text == '\t')) ++*text, length--;
  while (length && ((*text)[length - 1] == ' ' || (*text)[length - 1] == '\t')) length--;
  return length;
}

static bool parse_network(const char *text, size_t length, struct limits_address *address, int *bits) {
  const char *slash = memchr(text, '/', length);
  size_t size = slash ? (size_t)(slash - text) : length;
  if (!parse_plain(text, size, address)) return false;
  int most = is_ipv4(address) ? 32 : 128, offset = 128 - most, value = 0;
  *bits = 128;
  if (!slash) return true;
  size_t digits = length - size - 1;
  if (digits == 0 || digits > 3) return false;
  for (size_t i = 1; i <= digits; i++) {
    if (slash[i] < '0' || slash[i] > '9') return false;
    value = value * 10 + (slash[i] - '0');
  }
  *bits = offset + value;
  return value <= most;
}

enum hwgq_status limits_networks_parse(const char *text, struct limits_networks *networks, struct hwgq_error *error) {
  *networks = (struct limits_networks){0};
  while (text && *text) {
    size_t whole = strcspn(text, ",");
    const char *item = text;
    size_t length = trim(&item, whole);
    if (networks->count == LIMITS_MAX_NETWORKS) {
      return hwgq_fail(error, HWGQ_ERROR_LIMIT, "more than %d addresses", LIMITS_MAX_NETWORKS);
    }
    if (!parse_network(item, length, &networks->items[networks->count].address, &networks->items[networks->count].bits)) {
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "'%.*s' is no address or network: write 127.0.0.1, 10.0.0.0/8 or fd00::/8",
                       (int)(length < 60 ? length : 60), item);
    }
    networks->count++;
    text += whole;
    if (*text == ',') text++;
  }
  return HWGQ_OK;
}

bool limits_networks_contain(const struct limits_networks *networks, const struct limits_address *address) {
  for (int i = 0; i < networks->count; i++) {
    const uint8_t *network = networks->items[i].address.bytes;
    int bytes = networks->items[i].bits / 8, bits = networks->items[i].bits % 8;
    if (memcmp(network, address->bytes, (size_t)bytes) != 0) continue;
    if (!bits || ((network[bytes] ^ address->bytes[bytes]) >> (8 - bits)) == 0) return true;
  }
  return false;
}

bool limits_address_forwarded(const struct limits_networks *trusted, const char *header, struct limits_address *address) {
  size_t end = header ? strlen(header) : 0;
  while (end && limits_networks_contain(trusted, address)) {
    size_t start = end;
    while (start && header[start - 1] != ',') start--;
    const char *item = header + start;
    size_t length = trim(&item, end - start);
    struct limits_address before;
    if (!limits_address_parse(item, length, &before)) return false;
    *address = before;
    end = start ? start - 1 : 0;
  }
  return true;
}

uint64_t limits_address_number(const struct limits_address *address, uint64_t seed) {
  bool ipv4 = is_ipv4(address);
  return XXH3_64bits_withSeed(ipv4 ? address->bytes + 12 : address->bytes, ipv4 ? 4 : 8, seed);
}
