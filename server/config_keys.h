/* The table of configuration keys, shared by the file reader and the flag reader. */
#ifndef CONFIG_KEYS_H
#define CONFIG_KEYS_H

#include "server/config.h"

/* CONFIG_PATH: a string; in the file, relative to the file's folder. */
enum config_kind { CONFIG_INTEGER, CONFIG_STRING, CONFIG_PATH, CONFIG_CHOICE, CONFIG_MODELS };

struct config_key {
  const char *name;
  enum config_kind kind;
  size_t offset;                      /* of the field in struct config */
  int64_t standard, minimum, maximum; /* CONFIG_INTEGER; CONFIG_CHOICE: the index of the standard choice */
  const char *text;                   /* CONFIG_STRING: the standard, or NULL; CONFIG_CHOICE: "auto|text|json" */
  const char *help;
};

extern const struct config_key config_key_table[];
extern const int config_key_count;

const struct config_key *config_key_find(const char *name, size_t length);
/* Setters write a message without a location: the callers know whether it was a line or a flag. */
enum hwgq_status config_set_integer(struct config *config, const struct config_key *key, int64_t value,
                                    struct hwgq_error *error);
enum hwgq_status config_set_string(struct config *config, const struct config_key *key, const char *value,
                                   struct hwgq_error *error);
/* name NULL or "": from the file's name. */
enum hwgq_status config_add_model(struct config *config, const char *name, const char *folder, const char *path,
                                  struct hwgq_error *error);
void config_clear_models(struct config *config);

#endif
