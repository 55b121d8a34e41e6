/* The command line. */
#include "server/config.h"

#include "server/config_keys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct flag {
  const char *name; /* without the dashes */
  size_t length;
  const char *value; /* NULL: none given */
};

static enum hwgq_status set_model(struct config *config, const char *value, struct hwgq_error *error) {
  const char *equals = strchr(value, '=');
  char name[CONFIG_MAX_NAME + 1];
  if (!equals) return config_add_model(config, NULL, NULL, value, error);
  size_t length = (size_t)(equals - value);
  if (length >= sizeof name) return config_add_model(config, value, NULL, equals + 1, error);
  memcpy(name, value, length);
  name[length] = 0;
  return config_add_model(config, name, NULL, equals + 1, error);
}

static enum hwgq_status set_flag(struct config *config, const struct config_key *key, const char *value,
                                 struct hwgq_error *error) {
  if (key->kind == CONFIG_MODELS) return set_model(config, value, error);
  if (key->kind != CONFIG_INTEGER) return config_set_string(config, key, value, error);
  char *rest;
  errno = 0;
  long long number = strtoll(value, &rest, 10);
  if (errno || rest == value || *rest) return hwgq_fail(error, HWGQ_ERROR_INVALID, "'%.60s' is no whole number", value);
  return config_set_integer(config, key, number, error);
}

/* Takes argv[*index], and the next argument when the value stands there. */
static enum hwgq_status split_flag(int argc, char *const *argv, int *index, struct flag *flag, struct hwgq_error *error) {
  const char *argument = argv[*index];
  if (strncmp(argument, "--", 2) != 0 || !argument[2]) {
    return hwgq_fail(error, HWGQ_ERROR_INVALID, "unknown argument '%.80s': hwgqd --help lists the flags", argument);
  }
  const char *equals = strchr(argument, '=');
  flag->name = argument + 2;
  flag->length = equals ? (size_t)(equals - flag->name) : strlen(flag->name);
  flag->value = equals ? equals + 1 : NULL;
  if (!flag->value && *index + 1 < argc) flag->value = argv[*index + 1];
  return HWGQ_OK;
}

static bool flag_is(const struct flag *flag, const char *name) {
  return strlen(name) == flag->length && memcmp(flag->name, name, flag->length) == 0;
}

static bool command_flag(const struct flag *flag, enum config_command *command) {
  static const struct {
    const char *name;
    enum config_command command;
  } commands[] = {{"check", CONFIG_CHECK}, {"version", CONFIG_VERSION}, {"help", CONFIG_HELP}, {"health", CONFIG_HEALTH}};
  for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
    if (flag_is(flag, commands[i].name)) {
      *command = commands[i].command;
      return true;
    }
  }
  return false;
}

/* --add-key NAME and --rights RIGHTS. False: it is neither. */
static bool key_flag(const struct flag *flag, struct config *config, enum config_command *command, enum hwgq_status *status,
                     struct hwgq_error *error) {
  bool add = flag_is(flag, "add-key");
  char **field = add ? &config->add_key : &config->rights;
  *status = HWGQ_OK;
  if (!add && !flag_is(flag, "rights")) return false;
  if (add) *command = CONFIG_ADD_KEY;
  free(*field);
  *field = flag->value ? strdup(flag->value) : NULL;
  if (!flag->value) *status = hwgq_fail(error, HWGQ_ERROR_INVALID, "--%s needs a value", add ? "add-key" : "rights");
  if (flag->value && !*field) *status = hwgq_fail(error, HWGQ_ERROR_MEMORY, "no memory");
  return true;
}

/* Two passes over the same arguments: the file first, then the flags over it. A file that cannot be read sets *in_file. */
static enum hwgq_status pass(int argc, char *const *argv, bool file_pass, struct config *config, enum config_command *command,
                             bool *in_file, struct hwgq_error *error) {
  bool models_given = false, default_given = false;
  for (int i = 1; i < argc; i++) {
    struct flag flag = {0};
    struct hwgq_error what;
    enum hwgq_status status = split_flag(argc, argv, &i, &flag, error);
    if (status) return status;
    if (command_flag(&flag, command)) continue;
    if (flag_is(&flag, "open")) {
      config->open = true;
      continue;
    }
    if (key_flag(&flag, config, command, &status, error)) {
      if (status) return status;
      if (flag.value == (i + 1 < argc ? argv[i + 1] : NULL)) i++;
      continue;
    }
    const struct config_key *key = config_key_find(flag.name, flag.length);
    bool is_config = flag_is(&flag, "config");
    if (!key && !is_config) {
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "unknown flag '--%.*s': hwgqd --help lists the flags",
                       (int)(flag.length < 60 ? flag.length : 60), flag.name);
    }
    if (!flag.value) {
      return hwgq_fail(error, HWGQ_ERROR_INVALID, "--%.*s needs a value", (int)flag.length, flag.name);
    }
    if (flag.value == (i + 1 < argc ? argv[i + 1] : NULL)) i++;
    if (is_config) {
      status = file_pass ? config_read(flag.value, config, error) : HWGQ_OK;
      *in_file = status != HWGQ_OK;
      if (status) return status;
    } else if (!file_pass) {
      default_given |= strcmp(key->name, "default_model") == 0;
      if (key->kind == CONFIG_MODELS && !models_given) {
        config_clear_models(config);
        if (!default_given) { /* the file's default is one of the file's networks */
          free(config->default_model);
          config->default_model = NULL;
        }
      }
      models_given |= key->kind == CONFIG_MODELS;
      status = set_flag(config, key, flag.value, &what);
      if (status) return hwgq_fail(error, status, "--%.*s: %s", (int)flag.length, flag.name, what.message);
    }
  }
  return HWGQ_OK;
}

enum hwgq_status config_load(int argc, char *const *argv, struct config *config, enum config_command *command,
                             struct hwgq_error *error) {
  *command = CONFIG_RUN;
  config_init(config);
  bool in_file = false;
  enum hwgq_status status = pass(argc, argv, true, config, command, &in_file, error);
  if (!status) status = pass(argc, argv, false, config, command, &in_file, error);
  if (status && !in_file && *command != CONFIG_VERSION && *command != CONFIG_HELP) *command = CONFIG_USAGE;
  if (!status && !config->tls_certificate != !config->tls_key) {
    status = hwgq_fail(error, HWGQ_ERROR_INVALID, "%s is given without %s: HTTPS needs both",
                       config->tls_key ? "tls_key" : "tls_certificate", config->tls_key ? "tls_certificate" : "tls_key");
  }
  if (!status && config->metrics_access != CONFIG_METRICS_OPEN && !config->keys_file) {
    status = hwgq_fail(error, HWGQ_ERROR_INVALID, "metrics_access is given without keys_file: nobody could read them");
  }
  if (!status && config->max_buffered_bytes < config->max_body_bytes) {
    status = hwgq_fail(error, HWGQ_ERROR_INVALID,
                       "max_buffered_bytes (%lld) is less than max_body_bytes (%lld): one body would not fit",
                       (long long)config->max_buffered_bytes, (long long)config->max_body_bytes);
  }
  return status;
}
