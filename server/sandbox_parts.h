/* The layers that sandbox.c puts together. */
#ifndef SANDBOX_PARTS_H
#define SANDBOX_PARTS_H

#include "server/sandbox.h"

#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define SANDBOX_SANITIZED 1
#elif defined __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANDBOX_SANITIZED 1
#endif
#endif
#ifndef SANDBOX_SANITIZED
#define SANDBOX_SANITIZED 0
#endif

/* The kernel's Landlock version; 0: none, or not permitted here. */
int landlock_version(void);
/* Leaves the calling thread with reading below what the configuration names; `read_all`: below the root. no_new_privs is set.
 * Needs landlock_version() > 0. */
enum hwgq_status landlock_enter(const struct config *config, bool read_all, struct hwgq_error *error);

/* Whether the kernel has seccomp filters and they are permitted here. */
bool filter_available(void);
enum hwgq_status filter_make_process(struct sandbox_program *program, struct hwgq_error *error);
enum hwgq_status filter_make_worker(struct sandbox_program *program, struct hwgq_error *error);
/* For the calling thread. no_new_privs is set. False: errno says why. */
bool filter_enter(const struct sandbox_program *program);

#endif
