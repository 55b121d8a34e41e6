/* The access log. */
#ifndef REQUEST_LOG_H
#define REQUEST_LOG_H

#include "server/request.h"

/* Adds the line of a request that has ended to `lines`, see log_gather. `code`: as in struct stats_request. */
void request_log(const struct request *request, int code, struct text *lines);

#endif
