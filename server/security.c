#include "server/security.h"

#include "server/auth.h"
#include "server/limits.h"
#include "server/tls.h"

#include <stdlib.h>
#include <string.h>

enum {
  CLIENTS = 4096, /* that are remembered beyond those with a connection */
  DAYS_TO_WARN = 14,
};

static void log_certificate(const struct server *server, int64_t days) {
  if (days >= DAYS_TO_WARN) return;
  log_event(&server->log, LOG_WARNING, days < 0 ? "the certificate has expired" : "the certificate expires soon",
            log_integer("days_left", days));
}

static bool remember(char **kept, const char *path) {
  char *copy = path ? strdup(path) : NULL;
  if (path && !copy) return false;
  free(*kept);
  *kept = copy;
  return true;
}

static bool remember_files(struct server *server, const struct config *config) {
  return remember(&server->keys_file, config->keys_file) && remember(&server->tls_certificate, config->tls_certificate) &&
         remember(&server->tls_key, config->tls_key);
}

enum hwgq_status security_open(struct server *server, const struct config *config, struct hwgq_error *error) {
  int64_t days;
  server->auth = auth_create();
  server->limits = limits_create((size_t)config->max_connections + CLIENTS);
  if (config->tls_certificate) server->tls = tls_create();
  bool made = server->auth && server->limits && (!config->tls_certificate || server->tls);
  if (!made || !remember_files(server, config)) {
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
  if (config && !remember_files(server, config)) {
    log_event(&server->log, LOG_ERROR, "reload failed, API keys and certificate stay as they were",
              log_string("error", "no memory"));
    return;
  }
  if (auth_load(server->auth, server->keys_file, &error)) {
    log_event(&server->log, LOG_ERROR, "reload failed, the API keys stay as they were", log_string("error", error.message));
  }
  if (!server->tls || !server->tls_certificate) return;
  if (tls_load(server->tls, server->tls_certificate, server->tls_key, &days, &error)) {
    log_event(&server->log, LOG_ERROR, "reload failed, the certificate stays as it was", log_string("error", error.message));
  } else {
    log_certificate(server, days);
  }
}

void security_close(struct server *server) {
  auth_destroy(server->auth);
  limits_destroy(server->limits);
  tls_destroy(server->tls);
  free(server->keys_file);
  free(server->tls_certificate);
  free(server->tls_key);
  server->keys_file = server->tls_certificate = server->tls_key = NULL;
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
