/* Damaged paths and query strings of requests that are otherwise well-formed: an input is "G" (GET) or "P" (POST of an image)
 * and the rest of a request line after the first slash. Line ends and zero bytes, which would make other requests of it, are
 * replaced. Every reply is complete, has a request id, and is JSON where it says so; nothing but 2xx, 4xx and 503 comes. */
#include "tests/support/fuzz_daemon.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATIENCE_MS = 2000, MOST_BYTES = 7000 };

/* 8 x 8 gray pixels */
static const uint8_t png[] = {
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52, 0x00, 0x00, 0x00, 0x08,
    0x00, 0x00, 0x00, 0x08, 0x08, 0x00, 0x00, 0x00, 0x00, 0xe1, 0x64, 0xe1, 0x57, 0x00, 0x00, 0x00, 0x53, 0x49, 0x44, 0x41,
    0x54, 0x78, 0xda, 0x01, 0x48, 0x00, 0xb7, 0xff, 0x00, 0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x18, 0x1c, 0x00, 0x20, 0x24,
    0x28, 0x2c, 0x30, 0x34, 0x38, 0x3c, 0x00, 0x40, 0x44, 0x48, 0x4c, 0x50, 0x54, 0x58, 0x5c, 0x00, 0x60, 0x64, 0x68, 0x6c,
    0x70, 0x74, 0x78, 0x7c, 0x00, 0x80, 0x84, 0x88, 0x8c, 0x90, 0x94, 0x98, 0x9c, 0x00, 0xa0, 0xa4, 0xa8, 0xac, 0xb0, 0xb4,
    0xb8, 0xbc, 0x00, 0xc0, 0xc4, 0xc8, 0xcc, 0xd0, 0xd4, 0xd8, 0xdc, 0x00, 0xe0, 0xe4, 0xe8, 0xec, 0xf0, 0xf4, 0xf8, 0xfc,
    0xef, 0x26, 0x1f, 0x81, 0xd0, 0xe6, 0x7e, 0x06, 0x00, 0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82};

static const char *const seeds[] = {
    "Pclassify?top_k=3",
    "Pclassify?model=random&top_k=2",
    "Pv1/models/random/classify?top_k=65536&model=random",
    "Pv1/models/random/versions/1/classify?top_k=%35",
    "Pclassify?top_k=5&top_k=6&=&&a==b&top_k",
    "Gstats?window=60",
    "Gv1/models/random/stats?window=300&window=1",
    "Gv1/models/random",
    "Gmetrics?x=%00%zz%2",
    "Gv2/models/random/versions/1/ready?x",
    "Gpage/page.js?v=1",
    "G?a+b=%26%3d;c",
    "G%2e%2e/%2fhealthz",
};

static bool make_seed(int index, struct fuzz_buffer *buffer) {
  if (index >= (int)(sizeof seeds / sizeof seeds[0])) return false;
  fuzz_set(buffer, seeds[index], strlen(seeds[index]));
  return true;
}

static size_t write_request(const uint8_t *bytes, size_t length, uint8_t *request) {
  bool posts = bytes[0] == 'P';
  size_t size = (size_t)sprintf((char *)request, "%s /", posts ? "POST" : "GET");
  if (length > MOST_BYTES) length = MOST_BYTES;
  for (size_t i = 1; i < length; i++) {
    bool cuts = bytes[i] == 0 || bytes[i] == '\r' || bytes[i] == '\n';
    request[size++] = cuts ? '_' : bytes[i];
  }
  size += (size_t)sprintf((char *)request + size, " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
  if (posts) size += (size_t)sprintf((char *)request + size, "Content-Type: image/png\r\nContent-Length: %zu\r\n", sizeof png);
  size += (size_t)sprintf((char *)request + size, "\r\n");
  if (posts) memcpy(request + size, png, sizeof png);
  return size + (posts ? sizeof png : 0);
}

/* `end`: of the headers. */
static const char *check_reply(const char *reply, size_t received, const char *end) {
  const char *length = strstr(reply, "Content-Length: "), *type = strstr(reply, "Content-Type: application/json");
  if (!strstr(reply, "X-Request-Id: ")) return "a reply without request id";
  if (!length || length > end) return "a reply without length";
  size_t body = (size_t)strtoull(length + 16, NULL, 10);
  if (body != received - (size_t)(end - reply)) return "a reply that is cut off";
  if (!type || type > end) return NULL;
  json_t *value = json_loadb(end, body, 0, NULL);
  json_decref(value);
  return value ? NULL : "a reply whose JSON cannot be read";
}

static const char *check(const uint8_t *bytes, size_t length, bool *accepted) {
  static char reply[FUZZ_REPLY_BYTES];
  static uint8_t request[MOST_BYTES + 512];
  size_t received = 0;
  if (length == 0) return NULL;
  const char *problem = fuzz_daemon_ask(request, write_request(bytes, length, request), PATIENCE_MS, reply, &received);
  if (problem) return problem;
  const char *end = strstr(reply, "\r\n\r\n");
  if (!end) return "no reply";
  if (received < 12 || (reply[9] != '2' && reply[9] != '4' && strncmp(reply + 9, "503", 3) != 0)) return "an odd status";
  *accepted = reply[9] == '2';
  return check_reply(reply, received, end + 4);
}

int main(int argc, char **argv) {
  const struct fuzz_target target = {.name = "query", .runs = 2000, .make_seed = make_seed, .check = check};
  return fuzz_daemon_main(argc, argv, &target);
}
