/* What lifecycle.c has to do about keys, limits and certificates: one call each at start, reload and end. */
#ifndef SECURITY_H
#define SECURITY_H

#include "server/server.h"

/* Reads keys and certificates. On failure, too, security_close must follow. */
enum hwgq_status security_open(struct server *server, const struct config *config, struct hwgq_error *error);
/* Reads them again, from where `config` says now; NULL: it cannot be read, so from where they were last. What cannot be read
 * stays as it was and is logged. */
void security_reload(struct server *server, const struct config *config);
void security_close(struct server *server);
/* Logs what is open to whom and should not be. */
void security_warn(const struct server *server, bool loopback);
/* Whether keys and certificates can be used, without a server. */
enum hwgq_status security_check(const struct config *config, struct text *report, struct hwgq_error *error);

#endif
