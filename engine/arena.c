#include "engine/arena.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64, CHUNK_BYTES = 1 << 20 };

struct hwgq_arena_chunk {
  struct hwgq_arena_chunk *next;
  size_t used, capacity; /* bytes, this header included */
};

static struct hwgq_arena_chunk *add_chunk(struct hwgq_arena *arena, size_t bytes) {
  size_t capacity = bytes + ALIGNMENT;
  if (capacity < CHUNK_BYTES) capacity = CHUNK_BYTES;
  struct hwgq_arena_chunk *chunk = aligned_alloc(ALIGNMENT, capacity);
  if (!chunk) return NULL;
  *chunk = (struct hwgq_arena_chunk){.next = arena->chunks, .used = ALIGNMENT, .capacity = capacity};
  arena->chunks = chunk;
  return chunk;
}

void *hwgq_arena_allocate(struct hwgq_arena *arena, size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX / 2) return NULL;
  bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  struct hwgq_arena_chunk *chunk = arena->chunks;
  if (!chunk || chunk->capacity - chunk->used < bytes) chunk = add_chunk(arena, bytes);
  if (!chunk) return NULL;
  char *piece = (char *)chunk + chunk->used;
  chunk->used += bytes;
  memset(piece, 0, bytes);
  return piece;
}

char *hwgq_arena_format(struct hwgq_arena *arena, const char *format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  char *copy = hwgq_arena_allocate(arena, strlen(text) + 1, 1);
  if (copy) strcpy(copy, text);
  return copy;
}

size_t hwgq_arena_bytes(const struct hwgq_arena *arena) {
  size_t bytes = 0;
  for (const struct hwgq_arena_chunk *chunk = arena->chunks; chunk; chunk = chunk->next) bytes += chunk->used;
  return bytes;
}

void hwgq_arena_free(struct hwgq_arena *arena) {
  while (arena->chunks) {
    struct hwgq_arena_chunk *next = arena->chunks->next;
    free(arena->chunks);
    arena->chunks = next;
  }
}
