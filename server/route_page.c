/* GET /, /docs, /openapi.json and /page/{name}: the web page and its parts. The files of server/page/ are compiled into the
 * program, each as it is and packed with gzip, for clients that take that. */
#include "server/routes.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

/* PAGE_PACKED: the folder where make puts FILE.gz. */
#define EMBED(symbol, file)                                                                                                    \
  __asm__(".section .rodata\n" #symbol ":\n.incbin \"server/page/" file "\"\n" #symbol "_end:\n.byte 0\n" #symbol              \
          "_gz:\n.incbin \"" PAGE_PACKED "/" file ".gz\"\n" #symbol "_gz_end:\n.byte 0\n.previous\n");                         \
  extern const char symbol[], symbol##_end[], symbol##_gz[], symbol##_gz_end[]
#define FILE_OF(symbol, file, type)                                                                                            \
  { file, type, symbol, symbol##_end, symbol##_gz, symbol##_gz_end }

EMBED(page_index, "index.html");
EMBED(page_docs, "docs.html");
EMBED(page_openapi, "openapi.json");
EMBED(page_css, "page.css");
EMBED(page_app, "app.js");
EMBED(page_common, "common.js");
EMBED(page_classify, "classify.js");
EMBED(page_networks, "networks.js");
EMBED(page_live, "live.js");
EMBED(page_plot, "plot.js");
EMBED(page_reference, "docs.js");
EMBED(page_icon, "icon.svg");

struct page_file {
  const char *name, *type;
  const char *bytes, *end, *packed, *packed_end;
};

static const struct page_file files[] = {
    FILE_OF(page_index, "index.html", "text/html; charset=utf-8"),
    FILE_OF(page_docs, "docs.html", "text/html; charset=utf-8"),
    FILE_OF(page_openapi, "openapi.json", REPLY_JSON),
    FILE_OF(page_css, "page.css", "text/css; charset=utf-8"),
    FILE_OF(page_app, "app.js", "text/javascript; charset=utf-8"),
    FILE_OF(page_common, "common.js", "text/javascript; charset=utf-8"),
    FILE_OF(page_classify, "classify.js", "text/javascript; charset=utf-8"),
    FILE_OF(page_networks, "networks.js", "text/javascript; charset=utf-8"),
    FILE_OF(page_live, "live.js", "text/javascript; charset=utf-8"),
    FILE_OF(page_plot, "plot.js", "text/javascript; charset=utf-8"),
    FILE_OF(page_reference, "docs.js", "text/javascript; charset=utf-8"),
    FILE_OF(page_icon, "icon.svg", "image/svg+xml"),
};

/* Whether a list like `a, b;q=0.5` has the item, with a weight above zero. */
static bool list_has(const char *list, const char *item) {
  size_t length = strlen(item);
  while (list && *list) {
    list += strspn(list, " \t,");
    size_t part = strcspn(list, ","), name = strcspn(list, " \t,;");
    if (name == length && strncmp(list, item, length) == 0) {
      const char *weight = memmem(list, part, "q=", 2);
      return !weight || strcspn(weight + 2, "123456789") < strcspn(weight + 2, ",");
    }
    list += part;
  }
  return false;
}

/* The tag is that of the bytes that are sent, so the packed and the plain form have different ones. */
static void answer(struct request *request, const struct page_file *file) {
  struct reply *reply = &request->reply;
  const char *known = request_header(request, "If-None-Match");
  reply->page = true;
  reply->packed = list_has(request_header(request, "Accept-Encoding"), "gzip");
  reply->fixed = reply->packed ? file->packed : file->bytes;
  reply->fixed_length = (size_t)((reply->packed ? file->packed_end : file->end) - reply->fixed);
  snprintf(reply->etag, sizeof reply->etag, "\"%016llx\"", (unsigned long long)XXH3_64bits(reply->fixed, reply->fixed_length));
  reply->content_type = file->type;
  reply->status = 200;
  if (known && strstr(known, reply->etag)) reply->status = 304; /* libmicrohttpd keeps the length and sends no body */
}

static void answer_name(struct request *request, const char *name) {
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
    if (strcmp(files[i].name, name) != 0) continue;
    answer(request, &files[i]);
    return;
  }
  reply_error(&request->reply, 404, "not_found", request->id, "The page has no file '%.64s'. It begins at GET /.", name);
}

void route_page(struct request *request) {
  answer_name(request, "index.html");
}

void route_docs(struct request *request) {
  answer_name(request, "docs.html");
}

void route_openapi(struct request *request) {
  answer_name(request, "openapi.json");
}

void route_page_file(struct request *request) {
  answer_name(request, request->model_name);
}

void route_page_headers(const struct reply *reply, struct MHD_Response *response) {
  /* A browser asks whether its copy is still good: after an update the parts would not fit together otherwise. */
  MHD_add_response_header(response, "Cache-Control", "no-cache");
  MHD_add_response_header(response, "ETag", reply->etag);
  MHD_add_response_header(response, "Vary", "Accept-Encoding");
  MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
  MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
  MHD_add_response_header(response, "Content-Security-Policy",
                          "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
                          "form-action 'self'; base-uri 'none'; frame-ancestors 'none'");
  if (reply->packed) MHD_add_response_header(response, "Content-Encoding", "gzip");
}
