#include "server/request_log.h"

#include <arpa/inet.h>

static const char *client_of(const struct request *request, char *text, size_t size) {
  const union MHD_ConnectionInfo *info = MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
  if (!info || !info->client_addr) return NULL;
  if (info->client_addr->sa_family == AF_INET) {
    return inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)info->client_addr)->sin_addr, text, (socklen_t)size);
  }
  if (info->client_addr->sa_family == AF_INET6) {
    return inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)info->client_addr)->sin6_addr, text,
                     (socklen_t)size);
  }
  return NULL;
}

void request_log(const struct request *request, int code, struct text *lines) {
  struct stats_image sum;
  char client[INET6_ADDRSTRLEN];
  bool probe = !request->classifies && code < 400;
  const struct log *log = &request->server->log;
  if ((probe ? LOG_DEBUG : LOG_INFO) < atomic_load(&log->level)) return;
  request_sum_stages(request, &sum);
  /* On a terminal, ids that only the daemon knows would be noise. */
  bool traced = request->trace.trace_id[0] && (log->format == LOG_JSON || request->trace.parent_id[0]);
  struct log_field fields[] = {
      log_string("request_id", request->id),
      log_string("trace_id", traced ? request->trace.trace_id : NULL),
      log_string("span_id", traced ? request->trace.span_id : NULL),
      log_string("parent_id", request->trace.parent_id[0] ? request->trace.parent_id : NULL),
      log_string("client", client_of(request, client, sizeof client)),
      log_string("key", request->key_name[0] ? request->key_name : NULL),
      log_string("method", request->method),
      log_string("path", request->path),
      log_integer("code", code),
      log_string("model", request->model ? request->model->name : NULL),
      log_integer("bytes", (int64_t)request->received),
      log_integer("images", request->timing_count),
      log_ms("queue_ms", request->queue_ns),
      log_ms("decode_ms", sum.decode_ns),
      log_ms("preprocess_ms", sum.preprocess_ns),
      log_ms("inference_ms", sum.inference_ns),
      log_ms("total_ms", request->total_ns),
  };
  int count = request->queued ? 17 : request->classifies ? 11 : 9;
  log_gather(log, probe ? LOG_DEBUG : LOG_INFO, "request", fields, count, lines);
}
