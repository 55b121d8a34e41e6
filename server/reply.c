#include "server/reply.h"

#include <microhttpd.h>

void reply_error(struct reply *reply, int status, const char *code, const char *request_id, const char *format, ...) {
  struct text message = {0};
  va_list arguments;
  va_start(arguments, format);
  text_vprintf(&message, format, arguments);
  va_end(arguments);
  text_release(&reply->body);
  reply->status = status;
  reply->content_type = REPLY_JSON;
  reply->fixed = NULL;
  reply->header_length = 0;
  reply->authenticate = reply->page = false;
  if (!reply->v2) text_printf(&reply->body, "{\"error\":{\"code\":\"%s\",\"message\":", code);
  if (reply->v2) text_puts(&reply->body, "{\"error\":");
  text_json_string(&reply->body, message.failed ? "out of memory" : message.data);
  if (!reply->v2) {
    text_puts(&reply->body, "},\"request_id\":");
    text_json_string(&reply->body, request_id);
  }
  text_puts(&reply->body, "}\n");
  text_release(&message);
}

void reply_release(struct reply *reply) {
  text_release(&reply->body);
  *reply = (struct reply){0};
}

void reply_raw(const struct reply *reply, const char *request_id, struct text *text) {
  size_t length = reply->body.failed ? 0 : reply->body.length;
  text_printf(text,
              "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nX-Request-Id: %s\r\nConnection: close\r\n\r\n",
              reply->status, MHD_get_reason_phrase_for((unsigned)reply->status), reply->content_type, length, request_id);
  if (length) text_append(text, reply->body.data, length);
}
