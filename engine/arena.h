/* Memory that is allocated piece by piece and freed at once. Every piece is 64-byte aligned (a cache line, a vector register).
 */
#ifndef HWGQ_ARENA_H
#define HWGQ_ARENA_H

#include <stddef.h>

struct hwgq_arena_chunk;

struct hwgq_arena {
  struct hwgq_arena_chunk *chunks; /* newest first; {NULL} is an empty arena */
};

/* `count` zero-filled elements of `size` bytes; NULL when memory is out or the product overflows. */
void *hwgq_arena_allocate(struct hwgq_arena *arena, size_t count, size_t size);
/* A printf-formatted string; NULL when memory is out. */
char *hwgq_arena_format(struct hwgq_arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Bytes in use, headers and alignment included; the untouched rest of the last chunk is not counted. */
size_t hwgq_arena_bytes(const struct hwgq_arena *arena);
void hwgq_arena_free(struct hwgq_arena *arena);

#endif
