#include "server/manage.h"

#include "server/request.h"
#include "server/routes.h"

#include <stdlib.h>

struct manage {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  pthread_t thread;
  struct request *waiting[MANAGE_CAPACITY]; /* a ring: `count` from `first` */
  int first, count, reserved;
  bool stop;
};

static void *work(void *argument) {
  struct manage *manage = argument;
  pthread_mutex_lock(&manage->mutex);
  for (;;) {
    while (manage->count == 0 && !manage->stop) pthread_cond_wait(&manage->changed, &manage->mutex);
    if (manage->count == 0) break;
    struct request *request = manage->waiting[manage->first];
    manage->first = (manage->first + 1) % MANAGE_CAPACITY;
    manage->count--;
    pthread_mutex_unlock(&manage->mutex);
    request->route->answer(request);
    request_resume(request);
    pthread_mutex_lock(&manage->mutex);
  }
  pthread_mutex_unlock(&manage->mutex);
  return NULL;
}

struct manage *manage_start(void) {
  struct manage *manage = calloc(1, sizeof *manage);
  if (!manage) return NULL;
  if (pthread_mutex_init(&manage->mutex, NULL) == 0) {
    if (pthread_cond_init(&manage->changed, NULL) == 0) {
      if (pthread_create(&manage->thread, NULL, work, manage) == 0) return manage;
      pthread_cond_destroy(&manage->changed);
    }
    pthread_mutex_destroy(&manage->mutex);
  }
  free(manage);
  return NULL;
}

void manage_stop(struct manage *manage) {
  if (!manage) return;
  pthread_mutex_lock(&manage->mutex);
  manage->stop = true;
  pthread_cond_signal(&manage->changed);
  pthread_mutex_unlock(&manage->mutex);
  pthread_join(manage->thread, NULL);
  pthread_cond_destroy(&manage->changed);
  pthread_mutex_destroy(&manage->mutex);
  free(manage);
}

bool manage_reserve(struct manage *manage) {
  pthread_mutex_lock(&manage->mutex);
  bool room = manage->count + manage->reserved < MANAGE_CAPACITY;
  if (room) manage->reserved++;
  pthread_mutex_unlock(&manage->mutex);
  return room;
}

void manage_push(struct manage *manage, struct request *request) {
  pthread_mutex_lock(&manage->mutex);
  manage->reserved--;
  manage->waiting[(manage->first + manage->count++) % MANAGE_CAPACITY] = request;
  pthread_cond_signal(&manage->changed);
  pthread_mutex_unlock(&manage->mutex);
}
