#include "server/config.h"

#include "server/config_keys.h"
#include "server/limits_address.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIELD(name) offsetof(struct config, name)
#define MIB (INT64_C(1) << 20)

const struct config_key config_key_table[] = {
    {"listen", CONFIG_STRING, FIELD(listen), 0, 0, 0, "127.0.0.1:8080",
     "address and port; port 0 takes a free one; [::]:8080 or 0.0.0.0:8080 is reachable from other machines"},
    {"models", CONFIG_MODELS, FIELD(models), 0, 0, 0, NULL,
     "networks to serve: .hwgq files or folders of them, [NAME=]PATH; repeat the flag for several"},
    {"default_model", CONFIG_STRING, FIELD(default_model), 0, 0, 0, NULL,
     "the network that POST /classify uses; the first one when not given"},
    {"model_versions", CONFIG_INTEGER, FIELD(model_versions), 4, 1, CONFIG_MAX_VERSIONS, NULL,
     "numbered versions of a network that are kept loaded, the newest ones"},
    {"workers", CONFIG_INTEGER, FIELD(workers), 0, 0, 1024, NULL, "threads that decode and run networks; 0: one per core"},
    {"idle_workers", CONFIG_CHOICE, FIELD(idle_workers), CONFIG_IDLE_HELP, 0, 0, "help|sleep",
     "what workers without a request do: help others with their images, or sleep"},
    {"io_threads", CONFIG_INTEGER, FIELD(io_threads), 0, 0, 64, NULL, "threads that talk HTTP; 0: one per two cores"},
    {"queue_capacity", CONFIG_INTEGER, FIELD(queue_capacity), 256, 1, 1000000, NULL,
     "requests that may wait for a worker; more get 503"},
    {"queue_deadline_ms", CONFIG_INTEGER, FIELD(queue_deadline_ms), 5000, 1, 3600000, NULL,
     "a request that waited this long gets 504"},
    {"request_timeout_ms", CONFIG_INTEGER, FIELD(request_timeout_ms), 30000, 10, 3600000, NULL,
     "a request that has not arrived completely after this long gets 408"},
    {"idle_timeout_ms", CONFIG_INTEGER, FIELD(idle_timeout_ms), 60000, 10, 3600000, NULL,
     "a connection without a request is closed after this long"},
    {"drain_delay_ms", CONFIG_INTEGER, FIELD(drain_delay_ms), 0, 0, 3600000, NULL,
     "after SIGTERM, keep serving this long (not ready) so that load balancers notice"},
    {"max_body_bytes", CONFIG_INTEGER, FIELD(max_body_bytes), 16 * MIB, 1, 4096 * MIB, NULL, "a larger request body gets 413"},
    {"max_buffered_bytes", CONFIG_INTEGER, FIELD(max_buffered_bytes), 256 * MIB, 1, INT64_C(1) << 42, NULL,
     "memory for all request bodies and large replies together, of one client at most four fifths; more get 503"},
    {"max_pixels", CONFIG_INTEGER, FIELD(max_pixels), 64 * MIB, 1, INT64_C(1) << 32, NULL,
     "an image with more pixels (width x height) gets 422, as do the last images of a request with more in all"},
    {"max_decode_bytes", CONFIG_INTEGER, FIELD(max_decode_bytes), 128 * MIB, 4 * MIB, INT64_C(1) << 42, NULL,
     "memory for all images that are being decoded together; a larger one gets 422, one that finds it taken waits, or gets 503 "
     "when others need its worker"},
    {"max_decode_ms", CONFIG_INTEGER, FIELD(max_decode_ms), 3000, 1, 3600000, NULL,
     "time that decoding the images of one request may take; the others get 422"},
    {"max_scans", CONFIG_INTEGER, FIELD(max_scans), 64, 1, 65535, NULL, "of a progressive JPEG; more get 422"},
    {"max_images", CONFIG_INTEGER, FIELD(max_images), 64, 1, 4096, NULL, "images in one request; more get 413"},
    {"max_connections", CONFIG_INTEGER, FIELD(max_connections), 1024, 1, 60000, NULL,
     "open connections; when they are nearly used up, idle ones are closed"},
    {"log_format", CONFIG_CHOICE, FIELD(log_format), LOG_AUTO, 0, 0, "auto|text|json",
     "auto: text on a terminal, JSON otherwise"},
    {"log_level", CONFIG_CHOICE, FIELD(log_level), LOG_INFO, 0, 0, "debug|info|warning|error",
     "debug also logs probes and scrapes"},
    {"keys_file", CONFIG_PATH, FIELD(keys_file), 0, 0, 0, NULL,
     "API keys; requests then need one, and loading and unloading networks one with admin rights"},
    {"metrics_access", CONFIG_CHOICE, FIELD(metrics_access), CONFIG_METRICS_OPEN, 0, 0, "open|key|admin",
     "who may read /metrics and /stats: everyone, holders of a key, holders of an admin key"},
    {"tls_certificate", CONFIG_PATH, FIELD(tls_certificate), 0, 0, 0, NULL,
     "PEM file with the certificate and its chain: HTTPS instead of HTTP"},
    {"tls_key", CONFIG_PATH, FIELD(tls_key), 0, 0, 0, NULL, "PEM file with the certificate's private key"},
    {"client_requests_per_minute", CONFIG_INTEGER, FIELD(client_requests_per_minute), 0, 0, 100000000, NULL,
     "POST and PUT requests of one key, or of one address without a key; more get 429; 0: no limit"},
    {"client_burst", CONFIG_INTEGER, FIELD(client_burst), 0, 0, 1000000, NULL,
     "requests that a client may send at once within its rate; 0: what one second brings"},
    {"client_concurrency", CONFIG_INTEGER, FIELD(client_concurrency), 0, 0, 1000000, NULL,
     "requests of one client in progress; more get 429; 0: no limit"},
    {"trusted_proxies", CONFIG_STRING, FIELD(trusted_proxies), 0, 0, 0, NULL,
     "addresses or networks (10.0.0.0/8), separated by commas, whose X-Forwarded-For tells the client"},
    {"sandbox", CONFIG_CHOICE, FIELD(sandbox), 0, 0, 0, "try|on|off",
     "Landlock and seccomp after the start: as far as the kernel can, all of it or no start, nothing"},
    {"cpu", CONFIG_STRING, FIELD(cpu), 0, 0, 0, NULL,
     "kernel set: scalar, avx2, avx512, neon; the best that this CPU has when not given"},
    {"port_file", CONFIG_STRING, FIELD(port_file), 0, 0, 0, NULL, "a file to write the port number to once listening"},
};
const int config_key_count = sizeof config_key_table / sizeof config_key_table[0];

const char *config_key_name(int index) {
  return index < config_key_count ? config_key_table[index].name : NULL;
}

const struct config_key *config_key_find(const char *name, size_t length) {
  for (int i = 0; i < config_key_count; i++) {
    const char *known = config_key_table[i].name;
    size_t k = 0;
    /* flags are written with dashes */
    while (k < length && known[k] && (known[k] == name[k] || (known[k] == '_' && name[k] == '-'))) k++;
    if (k == length && !known[k]) return &config_key_table[i];
  }
  return NULL;
}

static void *field_of(struct config *config, const struct config_key *key) {
  return (char *)config + key->offset;
}

static bool is_string(const struct config_key *key) {
  return key->kind == CONFIG_STRING || key->kind == CONFIG_PATH;
}

void config_init(struct config *config) {
  *config = (struct config){0};
  for (int i = 0; i < config_key_count; i++) {
    const struct config_key *key = &config_key_table[i];
    if (key->kind == CONFIG_INTEGER || key->kind == CONFIG_CHOICE) *(int64_t *)field_of(config, key) = key->standard;
    if (key->kind == CONFIG_STRING && key->text) *(char **)field_of(config, key) = strdup(key->text);
  }
}

void config_clear_models(struct config *config) {
  for (int64_t i = 0; i < config->model_count; i++) {
    free(config->models[i].name);
    free(config->models[i].path);
  }
  free(config->models);
  config->models = NULL;
  config->model_count = 0;
}

void config_release(struct config *config) {
  config_clear_models(config);
  for (int i = 0; i < config_key_count; i++) {
    if (is_string(&config_key_table[i])) free(*(char **)field_of(config, &config_key_table[i]));
  }
  free(config->file);
  free(config->add_key);
  free(config->rights);
  *config = (struct config){0};
}

enum hwgq_status config_set_integer(struct config *config, const struct config_key *key, int64_t value,
                                    struct hwgq_error *error) {
  if (value < key->minimum || value > key->maximum) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "%lld is impossible, use a whole number from %lld to %lld", (long long)value,
                     (long long)key->minimum, (long long)key->maximum);
  }
  *(int64_t *)field_of(config, key) = value;
  return HWGQ_OK;
}

/* Index of `value` in "a|b|c", or -1. */
static int choice_index(const char *choices, const char *value) {
  size_t length = strlen(value);
  for (int index = 0;; index++) {
    const char *end = strchr(choices, '|');
    size_t size = end ? (size_t)(end - choices) : strlen(choices);
    if (size == length && memcmp(choices, value, length) == 0) return index;
    if (!end) return -1;
    choices = end + 1;
  }
}

enum hwgq_status config_set_string(struct config *config, const struct config_key *key, const char *value,
                                   struct hwgq_error *error) {
  char host[256];
  int port;
  if (key->kind == CONFIG_CHOICE) {
    int index = choice_index(key->text, value);
    if (index < 0) return hwgq_fail(error, HWGQ_ERROR_INVALID, "'%.60s' is not one of %s", value, key->text);
    *(int64_t *)field_of(config, key) = index;
    return HWGQ_OK;
  }
  if (!*value) return hwgq_fail(error, HWGQ_ERROR_INVALID, "an empty text is impossible: leave the key out instead");
  if (strcmp(key->name, "listen") == 0) {
    enum hwgq_status status = config_split_listen(value, host, sizeof host, &port, error);
    if (status) return status;
  }
  if (strcmp(key->name, "cpu") == 0 && !hwgq_cpu_supports(value)) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "'%.60s' is no kernel set that this CPU can run; its best is '%s'", value,
                     hwgq_cpu_best());
  }
  if (strcmp(key->name, "default_model") == 0 && !config_name_valid(value)) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "'%.60s' is no network name: use letters, digits, '.', '_' and '-'", value);
  }
  if (strcmp(key->name, "trusted_proxies") == 0) {
    struct limits_networks networks;
    enum hwgq_status status = limits_networks_parse(value, &networks, error);
    if (status) return status;
  }
  char *copy = strdup(value);
  if (!copy) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory");
  char **field = field_of(config, key);
  free(*field);
  *field = copy;
  return HWGQ_OK;
}

bool config_name_valid(const char *name) {
  size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
  return length > 0 && length <= CONFIG_MAX_NAME && !name[length] && name[0] != '.';
}

enum hwgq_status config_add_model(struct config *config, const char *name, const char *folder, const char *path,
                                  struct hwgq_error *error) {
  if (!*path) return hwgq_fail(error, HWGQ_ERROR_INVALID, "an empty path is impossible");
  if (name && !config_name_valid(name)) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "'%.60s' is no network name: use letters, digits, '.', '_' and '-', at most %d",
                     name, CONFIG_MAX_NAME);
  }
  if (config->model_count >= CONFIG_MAX_MODELS) {
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "more than %d networks", CONFIG_MAX_MODELS);
  }
  struct config_model *models = realloc(config->models, (size_t)(config->model_count + 1) * sizeof *models);
  if (!models) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory");
  config->models = models;
  struct config_model *model = &models[config->model_count];
  *model = (struct config_model){0};
  if (name) model->name = strdup(name);
  if (folder && path[0] != '/') {
    struct text text = {0};
    text_printf(&text, "%s/%s", folder, path);
    model->path = text_take(&text);
  } else {
    model->path = strdup(path);
  }
  config->model_count++;
  if (!model->path || (name && !model->name)) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory");
  return HWGQ_OK;
}

enum hwgq_status config_split_listen(const char *listen, char *host, size_t host_size, int *port, struct hwgq_error *error) {
  const char *start = listen, *colon = strrchr(listen, ':'), *end = colon;
  char *rest = NULL;
  if (colon && listen[0] == '[') {
    start = listen + 1;
    end = colon - 1;
    if (end <= start || *end != ']') colon = NULL;
  }
  if (!colon || end <= start || (size_t)(end - start) >= host_size ||
      (start == listen && memchr(start, ':', (size_t)(end - start)))) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "'%.80s' is no address: write 127.0.0.1:8080 or [::1]:8080", listen);
  }
  long value = -1;
  errno = 0;
  if (colon[1] >= '0' && colon[1] <= '9') value = strtol(colon + 1, &rest, 10);
  if (errno || !rest || *rest || value < 0 || value > 65535) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "'%.80s' has no port from 0 to 65535 after its last colon", listen);
  }
  memcpy(host, start, (size_t)(end - start));
  host[end - start] = 0;
  *port = (int)value;
  return HWGQ_OK;
}

static bool applied_by_reload(const struct config *a, const struct config *b, const char *key) {
  static const char *const always[] = {"models", "model_versions", "default_model", "drain_delay_ms", "log_level", "keys_file"};
  for (size_t i = 0; i < sizeof always / sizeof always[0]; i++) {
    if (strcmp(key, always[i]) == 0) return true;
  }
  /* from one certificate to another, but not between HTTP and HTTPS */
  return strncmp(key, "tls_", 4) == 0 && a->tls_certificate && b->tls_certificate;
}

void config_differences(const struct config *a, const struct config *b, struct text *text) {
  for (int i = 0; i < config_key_count; i++) {
    const struct config_key *key = &config_key_table[i];
    const char *x = (const char *)a + key->offset, *y = (const char *)b + key->offset;
    bool same = true;
    if (applied_by_reload(a, b, key->name)) continue;
    if (is_string(key)) {
      const char *s = *(char *const *)x, *t = *(char *const *)y;
      same = s && t ? strcmp(s, t) == 0 : s == t;
    } else {
      same = *(const int64_t *)x == *(const int64_t *)y;
    }
    if (!same) text_printf(text, "%s%s", text->length ? ", " : "", key->name);
  }
}

void config_help(struct text *text) {
  text_puts(text,
            "hwgqd: serves HWGQ-quantized image classifiers over HTTP.\n\n"
            "  hwgqd --config FILE            serve what a configuration file says\n"
            "  hwgqd --models FILE.hwgq       serve one network\n"
            "  hwgqd --config FILE --check    check the configuration and its networks, serve nothing\n"
            "  hwgqd --config FILE --health   ask the daemon that runs with this configuration; exit code 0 when healthy\n"
            "  hwgqd --config FILE --open     serve, and show the page in a browser\n"
            "  hwgqd --add-key NAME --rights inference|admin --keys-file FILE    make an API key and print it\n"
            "  hwgqd --version, --help\n\n"
            "Each key of the configuration file is also a flag, and flags win:\n");
  for (int i = 0; i < config_key_count; i++) {
    const struct config_key *key = &config_key_table[i];
    char flag[64];
    snprintf(flag, sizeof flag, "--%s", key->name);
    for (char *c = flag; *c; c++) {
      if (*c == '_') *c = '-';
    }
    text_printf(text, "  %-22s %s", flag, key->help);
    if (key->kind == CONFIG_INTEGER) text_printf(text, " (%lld)", (long long)key->standard);
    if (key->kind == CONFIG_STRING && key->text) text_printf(text, " (%s)", key->text);
    if (key->kind == CONFIG_CHOICE) text_printf(text, " (%s)", key->text);
    text_puts(text, "\n");
  }
  text_puts(text, "\nSignals: SIGTERM finishes what was accepted and ends; SIGHUP reads configuration and networks again;\n"
                  "SIGUSR1 logs everything (level debug), SIGUSR2 what log_level says.\n");
}
