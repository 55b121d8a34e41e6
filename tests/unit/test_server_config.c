/* The daemon's configuration: file, flags, and the messages for what is wrong. */
#include "server/config.h"

#include <check.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct hwgq_error error;

static enum hwgq_status parse(const char *text, struct config *config) {
  config_init(config);
  error.message[0] = 0;
  return config_parse(text, strlen(text), "test.json", "/etc/hwgqd", config, &error);
}

START_TEST(defaults_are_usable) {
  struct config config;
  config_init(&config);
  ck_assert_str_eq(config.listen, "127.0.0.1:8080");
  ck_assert_int_eq(config.queue_capacity, 256);
  ck_assert_int_eq(config.max_body_bytes, 16 << 20);
  ck_assert_int_ge(config.max_buffered_bytes, config.max_body_bytes);
  ck_assert_int_eq(config.model_count, 0);
  ck_assert_ptr_null(config.default_model);
  config_release(&config);
}
END_TEST

START_TEST(a_file_sets_every_kind_of_key) {
  struct config config;
  ck_assert_int_eq(parse("{\"$schema\":\"x\", \"listen\":\"[::1]:0\", \"models\":{\"a\":\"m/a.hwgq\",\"b\":\"/abs/b.hwgq\"},"
                         "\"default_model\":\"b\", \"workers\":3, \"log_format\":\"json\", \"log_level\":\"debug\"}",
                         &config),
                   HWGQ_OK);
  ck_assert_str_eq(config.listen, "[::1]:0");
  ck_assert_int_eq(config.model_count, 2);
  ck_assert_str_eq(config.models[0].name, "a");
  ck_assert_str_eq(config.models[0].path, "/etc/hwgqd/m/a.hwgq");
  ck_assert_str_eq(config.models[1].path, "/abs/b.hwgq");
  ck_assert_str_eq(config.default_model, "b");
  ck_assert_int_eq(config.workers, 3);
  ck_assert_int_eq(config.log_format, LOG_JSON);
  ck_assert_int_eq(config.log_level, LOG_DEBUG);
  config_release(&config);
}
END_TEST

START_TEST(models_may_be_one_path_or_a_list) {
  struct config config;
  ck_assert_int_eq(parse("{\"models\":\"zoo\"}", &config), HWGQ_OK);
  ck_assert_int_eq(config.model_count, 1);
  ck_assert_ptr_null(config.models[0].name);
  ck_assert_str_eq(config.models[0].path, "/etc/hwgqd/zoo");
  config_release(&config);
  ck_assert_int_eq(parse("{\"models\":[\"x.hwgq\",\"y\"]}", &config), HWGQ_OK);
  ck_assert_int_eq(config.model_count, 2);
  ck_assert_str_eq(config.models[1].path, "/etc/hwgqd/y");
  config_release(&config);
}
END_TEST

/* What is refused, and what its message must contain: file, line and key first. */
static const struct {
  const char *text, *message;
  enum hwgq_status status;
} refused[] = {
    {"{\n\n \"listne\": \"x\"}", "test.json:3: listne: unknown key", HWGQ_ERROR_INVALID},
    {"{\"workers\": \"two\"}", "test.json:1: workers: must be a whole number, not a text", HWGQ_ERROR_INVALID},
    {"{\n\"workers\": 1.5}", "test.json:2: workers: must be a whole number, not a fraction", HWGQ_ERROR_INVALID},
    {"{\n\"workers\": -1}", "test.json:2: workers: -1 is impossible, use a whole number from 0 to 1024", HWGQ_ERROR_INVALID},
    {"{\"queue_capacity\": 0}", "queue_capacity: 0 is impossible", HWGQ_ERROR_INVALID},
    {"{\"queue-capacity\": 5}", "queue-capacity: unknown key", HWGQ_ERROR_INVALID},
    {"{\"listen\": 8080}", "listen: must be a text in quotes, not a whole number", HWGQ_ERROR_INVALID},
    {"{\"listen\": \"8080\"}", "listen: '8080' is no address", HWGQ_ERROR_INVALID},
    {"{\"listen\": \"::1:8080\"}", "is no address", HWGQ_ERROR_INVALID},
    {"{\"listen\": \"localhost:\"}", "no port from 0 to 65535", HWGQ_ERROR_INVALID},
    {"{\"listen\": \"localhost:70000\"}", "no port from 0 to 65535", HWGQ_ERROR_INVALID},
    {"{\"listen\": \"localhost:80x\"}", "no port from 0 to 65535", HWGQ_ERROR_INVALID},
    {"{\"log_format\": \"xml\"}", "'xml' is not one of auto|text|json", HWGQ_ERROR_INVALID},
    {"{\"cpu\": \"abacus\"}", "'abacus' is no kernel set that this CPU can run", HWGQ_ERROR_INVALID},
    {"{\"default_model\": \"a b\"}", "'a b' is no network name", HWGQ_ERROR_INVALID},
    {"{\"models\": 7}", "models: must be a path, a list of paths, or an object", HWGQ_ERROR_INVALID},
    {"{\"models\": [1]}", "models: every entry must be a path in quotes", HWGQ_ERROR_INVALID},
    {"{\"models\": {\n\"a\": \"x\",\n\"b\": 1}}", "test.json:3: models.b: must be a path in quotes", HWGQ_ERROR_INVALID},
    {"{\"models\": {\n\n\"a/b\": \"x\"}}", "test.json:3: models.a/b: 'a/b' is no network name", HWGQ_ERROR_INVALID},
    {"{\"models\": {\"a\": \"\"}}", "models.a: an empty path is impossible", HWGQ_ERROR_INVALID},
    {"{\"workers\": 1, \"workers\": 2}", "test.json:1: not valid JSON: duplicate", HWGQ_ERROR_FORMAT},
    {"{\n\"workers\": ", "test.json:2: not valid JSON", HWGQ_ERROR_FORMAT},
    {"[1]", "test.json:1: must be a JSON object", HWGQ_ERROR_FORMAT},
    {"", "test.json:1: not valid JSON", HWGQ_ERROR_FORMAT},
    /* a key as a value, and as a key of another depth, is not mistaken for the key */
    {"{\"port_file\": \"workers\",\n\"models\": {\"workers\": \"x\"},\n\"workers\": true}",
     "test.json:3: workers: must be a whole", HWGQ_ERROR_INVALID},
};

START_TEST(mistakes_are_refused_with_file_line_and_key) {
  struct config config;
  ck_assert_int_eq(parse(refused[_i].text, &config), refused[_i].status);
  ck_assert_msg(strstr(error.message, refused[_i].message) != NULL, "%s gives: %s", refused[_i].text, error.message);
  config_release(&config);
}
END_TEST

static enum hwgq_status load(int argc, const char *const *argv, struct config *config, enum config_command *command) {
  error.message[0] = 0;
  return config_load(argc, (char *const *)(uintptr_t)argv, config, command, &error);
}

START_TEST(flags_win_over_the_file) {
  char path[] = "/tmp/hwgqd-config-XXXXXX";
  const char *text = "{\"workers\": 3, \"queue_capacity\": 7, \"models\": \"zoo\", \"default_model\": \"cat\"}";
  struct config config;
  enum config_command command;
  int fd = mkstemp(path);
  ck_assert_int_ge(fd, 0);
  ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
  close(fd);
  const char *argv[] = {"hwgqd",    "--workers=5", "--config", path,          "--models", "one=m/x.hwgq",
                        "--models", "m/y.hwgq",    "--check",  "--log_level", "error"};
  ck_assert_msg(load(11, argv, &config, &command) == HWGQ_OK, "%s", error.message);
  ck_assert_int_eq(command, CONFIG_CHECK);
  ck_assert_int_eq(config.workers, 5);
  ck_assert_int_eq(config.queue_capacity, 7);
  ck_assert_int_eq(config.model_count, 2);
  ck_assert_str_eq(config.models[0].name, "one");
  ck_assert_str_eq(config.models[0].path, "m/x.hwgq");
  ck_assert_ptr_null(config.models[1].name);
  ck_assert_str_eq(config.models[1].path, "m/y.hwgq");
  ck_assert_int_eq(config.log_level, LOG_ERROR);
  ck_assert_ptr_null(config.default_model); /* was one of the file's networks */
  ck_assert_str_eq(config.file, path);
  config_release(&config);
  unlink(path);
}
END_TEST

static const struct {
  const char *flag, *value, *message;
} bad_flags[] = {
    {"--wrkers", "1", "unknown flag '--wrkers'"},
    {"--workers", NULL, "--workers needs a value"},
    {"--workers", "4x", "--workers: '4x' is no whole number"},
    {"--workers", "99999999999999999999", "--workers: '99999999999999999999' is no whole number"},
    {"--workers=1025", NULL, "--workers: 1025 is impossible"},
    {"workers", NULL, "unknown argument 'workers'"},
    {"--", NULL, "unknown argument '--'"},
    {"--models", "a b=x.hwgq", "--models: 'a b' is no network name"},
    {"--config", "/nonexistent/hwgqd.json", "/nonexistent/hwgqd.json: cannot read the configuration file: No such file"},
    {"--max-buffered-bytes", "1000", "max_buffered_bytes (1000) is less than max_body_bytes"},
};

START_TEST(bad_flags_are_refused) {
  struct config config;
  enum config_command command;
  const char *argv[] = {"hwgqd", bad_flags[_i].flag, bad_flags[_i].value};
  ck_assert_int_ne(load(bad_flags[_i].value ? 3 : 2, argv, &config, &command), HWGQ_OK);
  ck_assert_msg(strstr(error.message, bad_flags[_i].message) != NULL, "%s", error.message);
  config_release(&config);
}
END_TEST

START_TEST(a_reload_names_what_it_cannot_apply) {
  struct config a, b;
  struct text text = {0};
  ck_assert_int_eq(parse("{\"models\":\"x\",\"drain_delay_ms\":1}", &a), HWGQ_OK);
  ck_assert_int_eq(parse("{\"models\":\"y\",\"drain_delay_ms\":2,\"workers\":9,\"port_file\":\"p\"}", &b), HWGQ_OK);
  config_differences(&a, &b, &text);
  ck_assert_str_eq(text.data, "workers, port_file");
  text_release(&text);
  config_differences(&a, &a, &text);
  ck_assert_ptr_null(text.data);
  config_release(&a);
  config_release(&b);
}
END_TEST

START_TEST(help_names_every_key) {
  struct text text = {0};
  config_help(&text);
  const char *key;
  for (int index = 0; (key = config_key_name(index)); index++) {
    char flag[64] = "--";
    for (size_t i = 0; key[i]; i++) flag[i + 2] = key[i] == '_' ? '-' : key[i];
    ck_assert_msg(strstr(text.data, flag) != NULL, "%s", flag);
  }
  text_release(&text);
}
END_TEST

/* The JSON Schema that editors use knows the same keys, defaults and limits as the program. */
START_TEST(the_schema_agrees_with_the_program) {
  json_t *schema = json_load_file("config/hwgqd.schema.json", 0, NULL), *properties = json_object_get(schema, "properties");
  struct config config;
  const char *key;
  int known = 0;
  ck_assert_msg(properties != NULL, "config/hwgqd.schema.json (the test runs from the repository's root)");
  for (; (key = config_key_name(known)); known++) {
    json_t *property = json_object_get(properties, key), *standard = json_object_get(property, "default");
    struct text text = {0};
    ck_assert_msg(property != NULL, "the schema does not know %s", key);
    if (!json_is_integer(standard)) continue;
    /* the default and both limits are accepted, one beyond each is not */
    json_int_t minimum = json_integer_value(json_object_get(property, "minimum"));
    json_int_t maximum = json_integer_value(json_object_get(property, "maximum"));
    const json_int_t values[] = {json_integer_value(standard), minimum, maximum, minimum - 1, maximum + 1};
    for (int i = 0; i < 5; i++) {
      text_printf(&text, "{\"%s\":%lld}", key, (long long)values[i]);
      ck_assert_msg((parse(text.data, &config) == HWGQ_OK) == (i < 3), "%s", text.data);
      config_release(&config);
      text_release(&text);
    }
    /* and the default is what an empty file gives */
    struct config empty;
    struct text same = {0};
    text_printf(&text, "{\"%s\":%lld}", key, (long long)values[0]);
    ck_assert_int_eq(parse(text.data, &config), HWGQ_OK);
    ck_assert_int_eq(parse("{}", &empty), HWGQ_OK);
    config_differences(&config, &empty, &same);
    ck_assert_msg(same.length == 0, "%s", same.data);
    config_release(&config);
    config_release(&empty);
    text_release(&text);
  }
  ck_assert_uint_eq(json_object_size(properties), (size_t)known + 1); /* and $schema */
  json_decref(schema);
}
END_TEST

START_TEST(the_shipped_configuration_is_good) {
  struct config config;
  config_init(&config);
  ck_assert_msg(config_read("config/hwgqd.json", &config, &error) == HWGQ_OK, "%s", error.message);
  ck_assert_int_ge(config.model_count, 2);
  ck_assert_str_eq(config.default_model, "cifar10");
  config_release(&config);
}
END_TEST

int main(void) {
  Suite *suite = suite_create("server_config");
  TCase *tests = tcase_create("config");
  tcase_add_test(tests, defaults_are_usable);
  tcase_add_test(tests, a_file_sets_every_kind_of_key);
  tcase_add_test(tests, models_may_be_one_path_or_a_list);
  tcase_add_loop_test(tests, mistakes_are_refused_with_file_line_and_key, 0, (int)(sizeof refused / sizeof refused[0]));
  tcase_add_test(tests, flags_win_over_the_file);
  tcase_add_loop_test(tests, bad_flags_are_refused, 0, (int)(sizeof bad_flags / sizeof bad_flags[0]));
  tcase_add_test(tests, a_reload_names_what_it_cannot_apply);
  tcase_add_test(tests, help_names_every_key);
  tcase_add_test(tests, the_schema_agrees_with_the_program);
  tcase_add_test(tests, the_shipped_configuration_is_good);
  suite_add_tcase(suite, tests);
  SRunner *runner = srunner_create(suite);
  srunner_run_all(runner, CK_NORMAL);
  int failed = srunner_ntests_failed(runner);
  srunner_free(runner);
  return failed != 0;
}
