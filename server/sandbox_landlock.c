/* Landlock (Linux 5.13 and later; https://docs.kernel.org/userspace-api/landlock.html), by its system calls: C libraries have
 * no wrappers. The kernel's version decides which rights exist; a right that it does not know must not be named. */
#include "server/sandbox_parts.h"

#include "server/config_keys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <linux/landlock.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
  VERSION_REFER = 2,
  VERSION_TRUNCATE = 3,
  VERSION_NETWORK = 4,
  VERSION_IOCTL = 5,
  VERSION_SCOPE = 6,
};

/* Rights by version, beyond those of the header that this is compiled with. */
#define RIGHTS_1 ((UINT64_C(1) << 13) - 1) /* execute, read, write, list, remove, make: bits 0 to 12 */
#define RIGHT_REFER (UINT64_C(1) << 13)
#define RIGHT_TRUNCATE (UINT64_C(1) << 14)
#define RIGHT_IOCTL (UINT64_C(1) << 15)
#define NETWORK_RIGHTS UINT64_C(3) /* bind, connect */
#define SCOPES UINT64_C(3)         /* abstract sockets, signals */

/* The kernel's struct as of version 6. An older kernel takes the longer struct when what it does not know is zero. */
struct rules {
  uint64_t files, network, scoped;
};

struct ruleset {
  int fd;
  uint64_t rights; /* that a rule may give */
};

int landlock_version(void) {
  long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
  return version > 0 ? (int)version : 0;
}

/* What does not exist gets no rule: opening it later fails with or without one. */
static void allow(const struct ruleset *ruleset, const char *path) {
  struct stat status;
  struct landlock_path_beneath_attr rule = {.parent_fd = open(path, O_PATH | O_CLOEXEC)};
  if (rule.parent_fd < 0) return;
  rule.allowed_access = ruleset->rights;
  if (fstat(rule.parent_fd, &status) == 0 && !S_ISDIR(status.st_mode)) rule.allowed_access &= ~LANDLOCK_ACCESS_FS_READ_DIR;
  syscall(SYS_landlock_add_rule, ruleset->fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
  close(rule.parent_fd);
}

static void allow_parent(const struct ruleset *ruleset, const char *path) {
  char copy[PATH_MAX];
  if (strlen(path) >= sizeof copy) return;
  strcpy(copy, path);
  allow(ruleset, dirname(copy));
}

/* The folder of a file, because a file that is replaced is a new one; and of what a link leads to. */
static void allow_file(const struct ruleset *ruleset, const char *path) {
  char real[PATH_MAX];
  allow_parent(ruleset, path);
  if (realpath(path, real)) allow_parent(ruleset, real);
}

static void allow_folder(const struct ruleset *ruleset, const char *path) {
  DIR *folder = opendir(path);
  struct dirent *entry;
  allow(ruleset, path);
  while (folder && (entry = readdir(folder))) {
    char file[PATH_MAX];
    if (entry->d_type != DT_LNK && entry->d_type != DT_UNKNOWN) continue;
    if (entry->d_name[0] == '.' || strlen(path) + strlen(entry->d_name) + 2 > sizeof file) continue;
    strcpy(file, path);
    strcat(file, "/");
    strcat(file, entry->d_name);
    allow_file(ruleset, file);
  }
  if (folder) closedir(folder);
}

static void allow_path(const struct ruleset *ruleset, const char *path) {
  struct stat status;
  if (stat(path, &status) == 0 && S_ISDIR(status.st_mode)) {
    allow_folder(ruleset, path);
  } else {
    allow_file(ruleset, path);
  }
}

/* Keys whose text is no path, or one that is open already. */
static bool names_path(const struct config_key *key) {
  static const char *const others[] = {"listen", "default_model", "cpu", "port_file", "trusted_proxies"};
  for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
    if (strcmp(key->name, others[i]) == 0) return false;
  }
  return key->kind != CONFIG_INTEGER && key->kind != CONFIG_CHOICE && key->kind != CONFIG_MODELS;
}

static void allow_configured(const struct ruleset *ruleset, const struct config *config) {
  for (int64_t i = 0; i < config->model_count; i++) allow_path(ruleset, config->models[i].path);
  for (int i = 0; i < config_key_count; i++) {
    const char *value = *(char *const *)(const void *)((const char *)config + config_key_table[i].offset);
    if (names_path(&config_key_table[i]) && value) allow_path(ruleset, value);
  }
  if (config->file) allow_file(ruleset, config->file);
  allow(ruleset, "/proc"); /* statistics of the process; Landlock itself keeps others' memory and environment closed */
}

enum hwgq_status landlock_enter(const struct config *config, bool read_all, struct hwgq_error *error) {
  int version = landlock_version();
  struct rules rules = {.files = RIGHTS_1};
  if (version >= VERSION_REFER) rules.files |= RIGHT_REFER;
  if (version >= VERSION_TRUNCATE) rules.files |= RIGHT_TRUNCATE;
  if (version >= VERSION_IOCTL) rules.files |= RIGHT_IOCTL;
  if (version >= VERSION_NETWORK) rules.network = NETWORK_RIGHTS;
  if (version >= VERSION_SCOPE) rules.scoped = SCOPES;
  struct ruleset ruleset = {.rights = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR};
  if (read_all) ruleset.rights |= LANDLOCK_ACCESS_FS_EXECUTE;
  ruleset.fd = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof rules, 0);
  if (ruleset.fd < 0) return hwgq_fail(error, HWGQ_ERROR_IO, "sandbox: Landlock gives no rules: %s", strerror(errno));
  if (read_all) {
    allow(&ruleset, "/");
  } else {
    allow_configured(&ruleset, config);
  }
  long entered = syscall(SYS_landlock_restrict_self, ruleset.fd, 0);
  int saved = errno;
  close(ruleset.fd);
  return entered ? hwgq_fail(error, HWGQ_ERROR_IO, "sandbox: Landlock cannot be entered: %s", strerror(saved)) : HWGQ_OK;
}
