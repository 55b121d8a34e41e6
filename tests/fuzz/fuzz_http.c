/* Damaged HTTP on a real socket (tests/support/fuzz_daemon.h). Whatever a client sends, there is no 500, no reply without a
 * request id of ours where we answer, and the daemon still works and ends cleanly. */
#include "tests/support/fuzz_daemon.h"

#include <string.h>

enum { PATIENCE_MS = 3 };

static const char *const seeds[] = {
    "POST /classify?top_k=3 HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nX-Request-Id: abc\r\nContent-Length: 20\r\n\r\n"
    "\xff\xd8\xff\xe0 not an image   ",
    "POST /v1/models/random/classify HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=XX\r\nContent-Length: "
    "94\r\n\r\n--XX\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.jpg\"\r\n\r\n\xff\xd8\xff\xd9 "
    "abc\r\n--XX--\r\n",
    "PUT /classify?model=random HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
    "chunked\r\n\r\n5\r\n\xff\xd8\xff\xe0z\r\n3;x=y\r\nabc\r\n0\r\n"
    "\r\n",
    "POST /classify HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    "POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\nabc",
    "GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\nGET /stats?window=60 HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "HEAD / HTTP/1.0\r\n\r\n",
    "DELETE /v1/models/random/stats HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /%00%2f%zz/../v2?a=b&&=%26 HTTP/1.1\r\nHost: x\r\nX-Request-Id: <script>\r\n\r\n",
};

static bool make_seed(int index, struct fuzz_buffer *buffer) {
  if (index >= (int)(sizeof seeds / sizeof seeds[0])) return false;
  fuzz_set(buffer, seeds[index], strlen(seeds[index]));
  return true;
}

static const char *check(const uint8_t *bytes, size_t length, bool *accepted) {
  static char reply[FUZZ_REPLY_BYTES];
  size_t received = 0;
  const char *problem = fuzz_daemon_ask(bytes, length, PATIENCE_MS, reply, &received);
  if (problem || received == 0) return problem;
  *accepted = strstr(reply, "HTTP/1.1 200") != NULL;
  for (const char *status = reply; (status = strstr(status, "HTTP/1.1 5")); status++) {
    /* Bodies, which end with a line feed, may quote the request, but no line feeds of it. */
    if (status > reply && status[-1] != '\n') continue;
    /* 503 queue, 504 deadline; 505 is libmicrohttpd's answer to another HTTP version */
    if (status[11] != '3' && status[11] != '4' && status[11] != '5') return "a status of 500";
  }
  return NULL;
}

int main(int argc, char **argv) {
  const struct fuzz_target target = {.name = "http", .runs = 500, .make_seed = make_seed, .check = check};
  return fuzz_daemon_main(argc, argv, &target);
}
