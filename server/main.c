/* hwgqd: the command line, and nothing else. */
#include "server/auth.h"
#include "server/health.h"
#include "server/lifecycle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_USAGE = 2 };

static int print(struct text *text) {
  if (!text->failed && text->data) fputs(text->data, stdout);
  text_release(text);
  return EXIT_SUCCESS;
}

static int fail(const struct hwgq_error *error, int code) {
  fprintf(stderr, "hwgqd: %s\n", error->message);
  return code;
}

/* The key goes to standard output alone, so that it can be piped to where it is kept. */
static int add_key(const struct config *config) {
  struct hwgq_error error = {{0}};
  char key[AUTH_KEY_SIZE];
  const char *rights = config->rights ? config->rights : "inference";
  bool admin = strcmp(rights, "admin") == 0;
  if (!config->keys_file) {
    hwgq_fail(&error, HWGQ_ERROR_INVALID, "--add-key needs --keys-file FILE, or keys_file in the configuration");
  } else if (!admin && strcmp(rights, "inference") != 0) {
    hwgq_fail(&error, HWGQ_ERROR_INVALID, "--rights: '%.60s' is not one of inference|admin", rights);
  }
  if (error.message[0]) return fail(&error, EXIT_USAGE);
  if (auth_add(config->keys_file, config->add_key, admin ? AUTH_ADMIN : AUTH_INFERENCE, key, &error)) {
    return fail(&error, EXIT_FAILURE);
  }
  fprintf(stderr,
          "The key '%s' with %s rights, which is shown only now (its hash is in %s; send SIGHUP to a running daemon):\n",
          config->add_key, rights, config->keys_file);
  puts(key);
  return EXIT_SUCCESS;
}

static int run(int argc, char **argv, const struct config *config, enum config_command command) {
  struct hwgq_error error;
  struct text text = {0};
  switch (command) {
  case CONFIG_HELP:
    config_help(&text);
    return print(&text);
  case CONFIG_VERSION:
    puts("hwgqd " HWGQ_VERSION);
    return EXIT_SUCCESS;
  case CONFIG_HEALTH:
    return health_probe(config, &error) ? fail(&error, EXIT_FAILURE) : EXIT_SUCCESS;
  case CONFIG_ADD_KEY:
    return add_key(config);
  case CONFIG_CHECK:
    if (lifecycle_check(config, &text, &error)) {
      text_release(&text);
      return fail(&error, EXIT_FAILURE);
    }
    text_puts(&text, "The configuration is good.\n");
    return print(&text);
  case CONFIG_RUN:
  case CONFIG_USAGE:
    break;
  }
  return lifecycle_run(config, argc, argv);
}

int main(int argc, char **argv) {
  struct config config;
  struct hwgq_error error;
  enum config_command command;
  enum hwgq_status status = config_load(argc, argv, &config, &command, &error);
  int code = status && command != CONFIG_HELP && command != CONFIG_VERSION
                 ? fail(&error, command == CONFIG_USAGE ? EXIT_USAGE : EXIT_FAILURE)
                 : run(argc, argv, &config, command);
  config_release(&config);
  return code;
}
