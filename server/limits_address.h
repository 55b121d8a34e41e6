/* Who sent a request, when no key says so: an address, behind proxies that are trusted to tell it. */
#ifndef LIMITS_ADDRESS_H
#define LIMITS_ADDRESS_H

#include "engine/hwgq.h"

#include <sys/socket.h>

enum { LIMITS_MAX_NETWORKS = 32 };

struct limits_address {
  uint8_t bytes[16]; /* IPv6; IPv4 as ::ffff:a.b.c.d */
};

struct limits_networks {
  struct {
    struct limits_address address;
    int bits; /* of the address that count, from the left */
  } items[LIMITS_MAX_NETWORKS];
  int count;
};

/* "127.0.0.1, 10.0.0.0/8, fd00::/8"; NULL is none. */
enum hwgq_status limits_networks_parse(const char *text, struct limits_networks *networks, struct hwgq_error *error);
bool limits_networks_contain(const struct limits_networks *networks, const struct limits_address *address);
/* "1.2.3.4", "1.2.3.4:80", "::1", "[::1]:80"; false: it is none. */
bool limits_address_parse(const char *text, size_t length, struct limits_address *address);
/* An address that is neither IPv4 nor IPv6 becomes ::. */
void limits_address_of(const struct sockaddr *socket_address, struct limits_address *address);
/* Replaces the address of a trusted proxy by what its X-Forwarded-For says: the last address that is not itself a trusted
 * proxy. Everything before it was written by the client and is not believed. `header` may be NULL. Of several such headers the
 * last comes first, and the one before it as long as this returns true: whether every word was understood. */
bool limits_address_forwarded(const struct limits_networks *trusted, const char *header, struct limits_address *address);
/* A number for the client. An IPv6 client has a network of 64 bits: its addresses there get the same. */
uint64_t limits_address_number(const struct limits_address *address, uint64_t seed);

#endif
