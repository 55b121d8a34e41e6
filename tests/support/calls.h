/* Counts what a thread allocates, frees, maps and locks: for tests of code that must do none of it.
 *
 * tests/unit/test_run_calls.c includes this once: the definitions below take the place of the C library's in the whole program,
 * count while `calls_counted` is set in the calling thread, and hand on to the library. */
#ifndef SUPPORT_CALLS_H
#define SUPPORT_CALLS_H

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>

struct calls {
  unsigned long allocations, frees, maps, locks;
};
static _Thread_local bool calls_counted;
static _Thread_local struct calls calls;

#define COUNT(what) (calls.what += calls_counted)

/* The allocator of glibc under its other names. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *memory, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);
void *memalign(size_t alignment, size_t size);

void *malloc(size_t size) {
  COUNT(allocations);
  return __libc_malloc(size);
}
void *calloc(size_t count, size_t size) {
  COUNT(allocations);
  return __libc_calloc(count, size);
}
void *realloc(void *memory, size_t size) {
  COUNT(allocations);
  return __libc_realloc(memory, size);
}
void *memalign(size_t alignment, size_t size) {
  COUNT(allocations);
  return __libc_memalign(alignment, size);
}
void *aligned_alloc(size_t alignment, size_t size) {
  COUNT(allocations);
  return __libc_memalign(alignment, size);
}
int posix_memalign(void **memory, size_t alignment, size_t size) {
  COUNT(allocations);
  void *made = __libc_memalign(alignment, size);
  if (!made) return ENOMEM;
  *memory = made;
  return 0;
}
void free(void *memory) {
  COUNT(frees);
  __libc_free(memory);
}

/* Defines NAME so that it counts and calls the next NAME, found when it is first needed. */
#define HAND_ON(type, name, what, parameters, arguments)                                                                       \
  type name parameters {                                                                                                       \
    static type(*next) parameters;                                                                                             \
    COUNT(what);                                                                                                               \
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, #name);                                                                      \
    return next arguments;                                                                                                     \
  }

HAND_ON(void *, mmap, maps, (void *address, size_t length, int protection, int flags, int fd, off_t offset),
        (address, length, protection, flags, fd, offset))
HAND_ON(int, munmap, maps, (void *address, size_t length), (address, length))
HAND_ON(int, pthread_mutex_lock, locks, (pthread_mutex_t * mutex), (mutex))
HAND_ON(int, pthread_mutex_trylock, locks, (pthread_mutex_t * mutex), (mutex))
HAND_ON(int, pthread_rwlock_rdlock, locks, (pthread_rwlock_t * lock), (lock))
HAND_ON(int, pthread_rwlock_wrlock, locks, (pthread_rwlock_t * lock), (lock))
HAND_ON(int, pthread_spin_lock, locks, (pthread_spinlock_t * lock), (lock))
HAND_ON(int, pthread_once, locks, (pthread_once_t * once, void (*routine)(void)), (once, routine))
HAND_ON(int, pthread_cond_wait, locks, (pthread_cond_t * condition, pthread_mutex_t *mutex), (condition, mutex))
HAND_ON(int, sem_wait, locks, (sem_t * semaphore), (semaphore))
HAND_ON(int, sem_post, locks, (sem_t * semaphore), (semaphore))

#endif
