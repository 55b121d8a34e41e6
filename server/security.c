#include "server/security.h"

#include "server/auth.h"
#include "server/limits.h"
#include "server/tls.h"

enum {
  CLIENTS = 4096, /* that are remembered beyond those with a connection */
  DAYS_TO_WARN = 14,
};

static void log_certificate(const struct server *server, int64_t days) {
  if (days >= DAYS_TO_WARN) return;
  log_event(&server->log, LOG_WARNING, days < 0 ? "the certificate has expired" : "the certificate expires soon",
            log_integer("days_left", days));
}

enum hwgq_status security_open(struct server *server, const struct config *config, struct hwgq_error *error) {
  int64_t days;
  server->auth = auth_create();
  server->limits = limits_create((size_t)config->max_connections + CLIENTS);
  if (config->tls_certificate) server->tls = tls_create();
  if (!server->auth || !server->limits || (config->tls_certificate && !server->tls)) {
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory to start");
  }
  enum hwgq_status status = limits_networks_parse(config->trusted_proxies, &server->trusted_proxies, error);
  if (!status) status = auth_load(server->auth, config->keys_file, error);
  if (!status && server->tls) {
    status = tls_load(server->tls, config->tls_certificate, config->tls_key, &days, error);
    if (!status) log_certificate(server, days);
  }
  return status;
}

void security_reload(struct server *server, const struct config *config) {
  struct hwgq_error error;
  int64_t days;
  if (auth_load(server->auth, config->keys_file, &error)) {
    log_event(&server->log, LOG_ERROR, "reload failed, the API keys stay as they were", log_string("error", error.message));
  }
  if (!server->tls || !config->tls_certificate) return;
  if (tls_load(server->tls, config->tls_certificate, config->tls_key, &days, &error)) {
    log_event(&server->log, LOG_ERROR, "reload failed, the certificate stays as it was", log_string("error", error.message));
  } else {
    log_certificate(server, days);
  }
}

void security_close(struct server *server) {
  auth_destroy(server->auth);
  limits_destroy(server->limits);
  tls_destroy(server->tls);
  server->auth = NULL;
  server->limits = NULL;
  server->tls = NULL;
}

void security_warn(const struct server *server, bool loopback) {
  if (loopback) return;
  if (!auth_enabled(server->auth)) {
    log_event(&server->log, LOG_WARNING,
              "reachable from other machines, without authentication: set keys_file, or put it behind a proxy or firewall",
              log_string("listen", server->config->listen));
  } else if (!server->tls) {
    log_event(
        &server->log, LOG_WARNING,
        "reachable from other machines, and API keys are sent in clear text: set tls_certificate, or put it behind a proxy",
        log_string("listen", server->config->listen));
  }
}

enum hwgq_status security_check(const struct config *config, struct text *report, struct hwgq_error *error) {
  struct auth *auth = auth_create();
  struct tls *tls = tls_create();
  int64_t days;
  enum hwgq_status status = auth && tls ? auth_load(auth, config->keys_file, error) : HWGQ_ERROR_MEMORY;
  if (!auth || !tls) hwgq_fail(error, status, "no memory");
  if (!status && config->tls_certificate) {
    status = tls_load(tls, config->tls_certificate, config->tls_key, &days, error);
    if (!status) text_printf(report, "certificate: %lld days left\n", (long long)days);
  }
  auth_destroy(auth);
  tls_destroy(tls);
  return status;
}
