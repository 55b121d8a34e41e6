/* A thread that talks HTTP: it runs one libmicrohttpd daemon, and is the only one that calls it. Requests that other threads
 * have finished come back to it through a list, so that one system call at most, and none while the thread is awake, tells it.
 *
 * libmicrohttpd's own thread would cost two system calls for each request that is resumed, and looks at every event as soon as
 * it comes: while the workers are busy that only takes their cores away, a context switch at a time. This one lets events
 * gather then (PAUSE_SHARE in io_loop.c). */
#ifndef IO_LOOP_H
#define IO_LOOP_H

#include "server/server.h"

#include <microhttpd.h>

struct io_loop;
struct request;

/* NULL: no memory or descriptors. */
struct io_loop *io_loop_create(struct server *server);
struct server *io_loop_server(const struct io_loop *loop);
/* Starts the thread. The daemon, which has no thread of its own, belongs to the loop from here on. */
bool io_loop_start(struct io_loop *loop, struct MHD_Daemon *daemon);
/* Hands a request of a suspended connection back; by any thread, which has no part in it from here on. */
void io_loop_resume(struct io_loop *loop, struct request *request);
/* A connection has been opened or closed; by the thread. libmicrohttpd must run once more before the thread may sleep: it takes
 * only some of the connections that wait at a time, and at a limit of connections or descriptors it does not look at the socket
 * that listens until it runs again. */
void io_loop_changed(struct io_loop *loop);
/* Lines of the log that the thread writes before it sleeps. For that thread, and for io_loop_stop. */
struct text *io_loop_lines(struct io_loop *loop);
/* Whether the thread has come around since io_loop_ask_turn, or since the loop was made. By any thread. */
bool io_loop_turned(struct io_loop *loop);
void io_loop_ask_turn(struct io_loop *loop);
/* The daemon accepts no more connections when this returns. */
void io_loop_quiesce(struct io_loop *loop);
/* Ends the thread and the daemon; nothing may be suspended. Other threads may still be about to return from io_loop_resume: the
 * loop is to be destroyed when they have ended. */
void io_loop_stop(struct io_loop *loop);
void io_loop_destroy(struct io_loop *loop);

#endif
