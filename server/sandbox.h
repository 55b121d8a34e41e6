/* What the process may still do once it has started. Three layers, each of which only takes away:
 *   no_new_privs  nothing that could be executed would gain rights
 *   Landlock      for the whole process: files can only be read, only below the folders that the configuration names (and
 *                 /proc); no TCP connection, no TCP port, no abstract socket, no signal to others, as far as the kernel knows
 *                 them
 *   seccomp       for the whole process: no program, no child process, no tracing, no file opened for writing, no new socket;
 *                 for each worker, which reads what strangers sent: no file and no socket at all, no executable memory, only
 *                 what decoding and inference need
 * A reload still works, because the main thread may read. Networks that a reload lists must lie in a folder that was known at
 * the start.
 *
 * Sanitizers trace, open and run things themselves. In such builds `try` does nothing, and `on` leaves out what they need: the
 * process's filter, and the limits on reading. */
#ifndef SANDBOX_H
#define SANDBOX_H

#include "server/config.h"

enum sandbox_mode {
  SANDBOX_TRY, /* as much as the kernel has and permits */
  SANDBOX_ON,  /* all of it, or no start */
  SANDBOX_OFF,
};

struct sock_filter;

/* A seccomp program; count 0: none. */
struct sandbox_program {
  struct sock_filter *code; /* owned */
  unsigned short count;
};

struct sandbox {
  enum sandbox_mode mode;
  int landlock;                  /* version of the kernel's Landlock that is in force; 0: none */
  bool process_filter;           /* in force */
  struct sandbox_program worker; /* that sandbox_enter_worker puts in force */
  struct hwgq_error missing;     /* SANDBOX_TRY: what could not be had, and why; empty when nothing is missing */
};

/* Restricts the calling thread and all threads that it starts from here on, for good: call it when everything that has to be
 * opened for writing, or listened on, is open, and before threads start. *sandbox must be released also on failure. */
enum hwgq_status sandbox_enter(struct sandbox *sandbox, const struct config *config, struct hwgq_error *error);
void sandbox_release(struct sandbox *sandbox);
/* Restricts the calling thread as a worker. False: it is not restricted and must not touch what strangers sent. */
bool sandbox_enter_worker(const struct sandbox *sandbox);
/* Whether only the sandbox keeps the process from reading this path: it lies in no folder that was configured at the start. */
bool sandbox_hides(const struct sandbox *sandbox, const char *path);
/* One line of what is in force. */
void sandbox_describe(const struct sandbox *sandbox, struct text *text);
/* One line of what this kernel would give, without entering anything. Fails where SANDBOX_ON would. */
enum hwgq_status sandbox_probe(enum sandbox_mode mode, struct text *text, struct hwgq_error *error);

#endif
