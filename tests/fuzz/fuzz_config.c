/* Damaged configuration files: refused with a message that begins with the file and a line, or taken with values that are all
 * possible. */
#include "server/config.h"
#include "tests/support/fuzz.h"

#include <string.h>

static const char *const seeds[] = {
    "{\n  \"$schema\": \"hwgqd.schema.json\",\n  \"listen\": \"127.0.0.1:8080\",\n  \"models\": {\n    \"cifar10\": "
    "\"../models/zoo/cifar10.hwgq\",\n    \"fashion-mnist\": \"/x/fashion-mnist.hwgq\"\n  },\n  \"default_model\": "
    "\"cifar10\"\n}\n",
    "{\"models\":[\"a.hwgq\",\"b\"],\"workers\":2,\"io_threads\":1,\"queue_capacity\":256,\"queue_deadline_ms\":5000,"
    "\"request_timeout_ms\":30000,\"idle_timeout_ms\":60000,\"drain_delay_ms\":0}",
    "{\"models\":\"zoo\",\"max_body_bytes\":16777216,\"max_buffered_bytes\":268435456,\"max_pixels\":67108864,\"max_images\":"
    "64,"
    "\"max_connections\":1024,\"log_format\":\"json\",\"log_level\":\"debug\",\"cpu\":\"scalar\",\"port_file\":\"p\"}",
    "{\"listen\":\"[::1]:0\",\"models\":{\"\\u0061\":\"\\\"x\\\\\"}}",
};

static bool make_seed(int index, struct fuzz_buffer *buffer) {
  if (index >= (int)(sizeof seeds / sizeof seeds[0])) return false;
  fuzz_set(buffer, seeds[index], strlen(seeds[index]));
  return true;
}

static const char *check_values(const struct config *config) {
  char host[256];
  int port;
  if (config->workers < 0 || config->workers > 1024) return "impossible number of workers";
  if (config->queue_capacity < 1 || config->queue_deadline_ms < 1 || config->max_body_bytes < 1) return "an impossible number";
  if (config->log_format < LOG_AUTO || config->log_format > LOG_JSON) return "an impossible log format";
  if (config_split_listen(config->listen, host, sizeof host, &port, NULL)) return "an impossible address";
  if (config->default_model && !config_name_valid(config->default_model)) return "an impossible default network";
  for (int64_t i = 0; i < config->model_count; i++) {
    if (!config->models[i].path[0]) return "an empty path";
    if (config->models[i].name && !config_name_valid(config->models[i].name)) return "an impossible network name";
  }
  return NULL;
}

static const char *check(const uint8_t *bytes, size_t length, bool *accepted) {
  struct config config;
  struct hwgq_error error = {{0}};
  const char *problem = NULL;
  config_init(&config);
  enum hwgq_status status = config_parse((const char *)bytes, length, "fuzz.json", "/folder", &config, &error);
  *accepted = !status;
  if (status && strncmp(error.message, "fuzz.json:", 10) != 0) problem = "a message without file and line";
  if (!status) problem = check_values(&config);
  config_release(&config);
  return problem;
}

int main(int argc, char **argv) {
  const struct fuzz_target target = {.name = "config", .runs = 100000, .make_seed = make_seed, .check = check};
  return fuzz_main(argc, argv, &target);
}
