/* Configuration: defaults, then a JSON file, then command-line flags. Every key of the file is also a flag (`queue_capacity` is
 * `--queue-capacity 64`). Unknown keys, wrong types and impossible values are refused with file, line and key. */
#ifndef CONFIG_H
#define CONFIG_H

#include "engine/hwgq.h"
#include "models/classify/text.h"
#include "server/log.h"

enum { CONFIG_MAX_MODELS = 256, CONFIG_MAX_VERSIONS = 16, CONFIG_MAX_NAME = 64, CONFIG_MAX_FILE_BYTES = 1 << 20 };

enum config_metrics { CONFIG_METRICS_OPEN, CONFIG_METRICS_KEY, CONFIG_METRICS_ADMIN };

/* One entry of `models`: a .hwgq file, or a folder of them. */
struct config_model {
  char *name; /* NULL: the file's name without .hwgq */
  char *path; /* as it will be opened: entries of the file are relative to the file's folder */
};

struct config {
  char *file;   /* NULL: no configuration file */
  char *listen; /* "127.0.0.1:8080", "[::1]:8080"; port 0 takes a free one */
  struct config_model *models;
  int64_t model_count;
  char *default_model;         /* NULL: the first */
  int64_t workers, io_threads; /* 0: by the number of cores */
  int64_t queue_capacity, queue_deadline_ms, request_timeout_ms, idle_timeout_ms, drain_delay_ms;
  int64_t max_body_bytes, max_buffered_bytes, max_pixels, max_images, max_connections;
  int64_t max_decode_bytes, max_decode_ms, max_scans;
  int64_t log_format, log_level; /* enum log_format, enum log_level */
  int64_t idle_workers;          /* enum config_idle */
  char *cpu;                     /* kernel set; NULL: the best this CPU has */
  int64_t sandbox;               /* enum sandbox_mode */
  int64_t model_versions;        /* of one network that are kept loaded */
  char *keys_file;               /* API keys; NULL: none */
  int64_t metrics_access;        /* enum config_metrics */
  char *tls_certificate, *tls_key;
  char *trusted_proxies; /* addresses whose X-Forwarded-For is believed, separated by commas; NULL: none */
  int64_t client_requests_per_minute, client_burst, client_concurrency; /* 0: no limit; see limits.h */
  char *port_file; /* NULL, or a file that gets the port number once the daemon listens */
  /* Not keys, but what --add-key NAME --rights RIGHTS said, or --open. */
  char *add_key, *rights;
  bool open; /* --open */
};

enum config_idle { CONFIG_IDLE_HELP, CONFIG_IDLE_SLEEP };
/* CONFIG_USAGE: the command line itself makes no sense. */
enum config_command { CONFIG_RUN, CONFIG_CHECK, CONFIG_VERSION, CONFIG_HELP, CONFIG_HEALTH, CONFIG_ADD_KEY, CONFIG_USAGE };

/* Names of the keys, in the order of --help; NULL after the last. */
const char *config_key_name(int index);

void config_init(struct config *config); /* the defaults */
void config_release(struct config *config);
/* Applies a configuration text over what is in *config. `file` names it in messages, `folder` is what relative model paths are
 * relative to. On failure *config may hold part of the text. */
enum hwgq_status config_parse(const char *bytes, size_t length, const char *file, const char *folder, struct config *config,
                              struct hwgq_error *error);
/* Reads a file and applies it. */
enum hwgq_status config_read(const char *path, struct config *config, struct hwgq_error *error);
/* Defaults, the file named by --config, flags: the whole command line into *config, which need not be initialized and must be
 * released also on failure. A failure sets *command to CONFIG_USAGE when a flag is unknown or its value impossible, unless the
 * command is CONFIG_VERSION or CONFIG_HELP. */
enum hwgq_status config_load(int argc, char *const *argv, struct config *config, enum config_command *command,
                             struct hwgq_error *error);
void config_help(struct text *text);
/* Splits "host:port" or "[host]:port". */
enum hwgq_status config_split_listen(const char *listen, char *host, size_t host_size, int *port, struct hwgq_error *error);
/* Keys that differ and that a reload cannot apply, separated by commas: those other than models, model_versions, default_model,
 * drain_delay_ms, log_level, and keys_file, tls_certificate and tls_key, whose files are read again. */
void config_differences(const struct config *a, const struct config *b, struct text *text);
/* Network names: letters, digits, '.', '_', '-', up to CONFIG_MAX_NAME, not starting with a dot. */
bool config_name_valid(const char *name);

#endif
