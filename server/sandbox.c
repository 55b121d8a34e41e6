#include "server/sandbox.h"

#include "server/sandbox_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static bool active(enum sandbox_mode mode) {
  return mode == SANDBOX_ON || (mode == SANDBOX_TRY && !SANDBOX_SANITIZED);
}

static bool refused(int fd) {
  if (fd >= 0) close(fd);
  return fd < 0 && errno == EPERM;
}

static void *try_worker(void *argument) {
  const struct sandbox *sandbox = argument;
  bool works =
      filter_enter(&sandbox->worker) && refused(open("/", O_RDONLY | O_CLOEXEC)) && refused(socket(AF_INET, SOCK_STREAM, 0));
  return works ? argument : NULL;
}

/* Whether a thread that has entered the worker's filter is really refused a file and a socket. */
static bool worker_filter_works(struct sandbox *sandbox) {
  pthread_t thread;
  void *result = NULL;
  return pthread_create(&thread, NULL, try_worker, sandbox) == 0 && pthread_join(thread, &result) == 0 && result;
}

static enum hwgq_status enter_landlock(struct sandbox *sandbox, const struct config *config, struct hwgq_error *error) {
  int version = landlock_version();
  if (version == 0) {
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "sandbox: this kernel has no Landlock, or it is not permitted here");
  }
  enum hwgq_status status = landlock_enter(config, SANDBOX_SANITIZED, error);
  if (!status) sandbox->landlock = version;
  return status;
}

static enum hwgq_status enter_filters(struct sandbox *sandbox, struct hwgq_error *error) {
  struct sandbox_program process = {0};
  if (!filter_available()) {
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "sandbox: seccomp filters do not exist or are not permitted here");
  }
  enum hwgq_status status = filter_make_worker(&sandbox->worker, error);
  if (!status && !worker_filter_works(sandbox)) {
    status = hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "sandbox: a seccomp filter had no effect on a thread");
  }
  if (!status && !SANDBOX_SANITIZED) status = filter_make_process(&process, error);
  if (!status && process.count) {
    sandbox->process_filter = filter_enter(&process);
    if (!sandbox->process_filter) {
      status = hwgq_fail(error, HWGQ_ERROR_IO, "sandbox: the seccomp filter cannot be entered: %s", strerror(errno));
    }
  }
  free(process.code);
  if (status) sandbox_release(sandbox);
  return status;
}

enum hwgq_status sandbox_enter(struct sandbox *sandbox, const struct config *config, struct hwgq_error *error) {
  struct hwgq_error filters = {{0}}, files = {{0}};
  *sandbox = (struct sandbox){.mode = (enum sandbox_mode)config->sandbox};
  if (!active(sandbox->mode)) return HWGQ_OK;
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) {
    hwgq_fail(&files, HWGQ_ERROR_IO, "sandbox: no_new_privs is not possible: %s", strerror(errno));
  } else {
    /* Landlock first: the filter makes its files read-only, Landlock does not take the filter's calls away. */
    enter_landlock(sandbox, config, &files);
    enter_filters(sandbox, &filters);
  }
  const char *first = files.message[0] ? files.message : filters.message;
  const char *second = files.message[0] ? filters.message : "";
  if (!first[0]) return HWGQ_OK;
  struct hwgq_error *report = sandbox->mode == SANDBOX_ON ? error : &sandbox->missing;
  hwgq_fail(report, HWGQ_ERROR_UNSUPPORTED, "%.120s%s%.120s", first, second[0] ? "; " : "", second);
  return sandbox->mode == SANDBOX_ON ? HWGQ_ERROR_UNSUPPORTED : HWGQ_OK;
}

void sandbox_release(struct sandbox *sandbox) {
  free(sandbox->worker.code);
  sandbox->worker = (struct sandbox_program){0};
}

bool sandbox_enter_worker(const struct sandbox *sandbox) {
  return sandbox->worker.count == 0 || filter_enter(&sandbox->worker);
}

bool sandbox_hides(const struct sandbox *sandbox, const char *path) {
  int fd = sandbox->landlock ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (fd >= 0) close(fd);
  /* access() asks the file's own permissions only */
  return sandbox->landlock && fd < 0 && errno == EACCES && access(path, R_OK) == 0;
}

void sandbox_describe(const struct sandbox *sandbox, struct text *text) {
  if (!active(sandbox->mode)) {
    text_puts(text, sandbox->mode == SANDBOX_OFF ? "off" : "off in a build with sanitizers");
    return;
  }
  text_puts(text, "no_new_privs");
  if (sandbox->landlock) text_printf(text, ", Landlock %d", sandbox->landlock);
  if (sandbox->process_filter) text_puts(text, ", seccomp");
  if (sandbox->worker.count) text_puts(text, ", seccomp for workers");
}

enum hwgq_status sandbox_probe(enum sandbox_mode mode, struct text *text, struct hwgq_error *error) {
  static const char *const names[] = {"try", "on", "off"};
  int version = landlock_version();
  bool filters = filter_available();
  if (mode == SANDBOX_ON && (!version || !filters)) {
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "sandbox: %s%s%s not possible here: set sandbox to try or off",
                     version ? "" : "Landlock", version || filters ? "" : " and ", filters ? "" : "seccomp");
  }
  text_printf(text, "sandbox (%s): ", names[mode]);
  if (!active(mode)) {
    text_puts(text, mode == SANDBOX_OFF ? "none" : "none in a build with sanitizers");
  } else {
    text_printf(text, "no_new_privs, %s", version ? "Landlock " : "no Landlock here");
    if (version) text_printf(text, "%d", version);
    text_puts(text, filters ? ", seccomp" : ", no seccomp here");
  }
  text_puts(text, "\n");
  return HWGQ_OK;
}
