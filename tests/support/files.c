/* Temporary directories, files, and what /proc says. */
#include "tests/support/support.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *support_make_directory(void) {
  const char *base = getenv("TMPDIR");
  char *directory = support_path(base ? base : "/tmp", "hwgq-test-XXXXXX");
  if (!mkdtemp(directory)) abort();
  return directory;
}

void support_remove_directory(char *directory) {
  DIR *entries = opendir(directory);
  if (!entries) abort();
  for (struct dirent *entry; (entry = readdir(entries));) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    char *path = support_path(directory, entry->d_name);
    if (unlink(path) && rmdir(path)) abort();
    free(path);
  }
  closedir(entries);
  if (rmdir(directory)) abort();
  free(directory);
}

char *support_path(const char *directory, const char *name) {
  size_t size = strlen(directory) + strlen(name) + 2;
  char *path = malloc(size);
  if (!path) abort();
  snprintf(path, size, "%s/%s", directory, name);
  return path;
}

void support_write_file(const char *path, const void *bytes, size_t length) {
  FILE *file = fopen(path, "wb");
  if (!file || fwrite(bytes, 1, length, file) != length || fclose(file)) abort();
}

uint8_t *support_read_file(const char *path, size_t *length) {
  FILE *file = fopen(path, "rb");
  if (!file) return NULL;
  size_t capacity = 4096, used = 0;
  uint8_t *bytes = malloc(capacity + 1);
  for (size_t got; bytes && (got = fread(bytes + used, 1, capacity - used, file)) > 0;) {
    used += got;
    if (used == capacity) bytes = realloc(bytes, (capacity *= 2) + 1);
  }
  bool failed = ferror(file);
  fclose(file);
  if (!bytes) abort();
  if (failed) {
    free(bytes);
    return NULL;
  }
  bytes[used] = 0;
  *length = used;
  return bytes;
}

long support_peak_kib(void) {
  char line[128];
  long kib = 0;
  FILE *status = fopen("/proc/self/status", "r");
  while (status && fgets(line, sizeof line, status)) sscanf(line, "VmHWM: %ld", &kib);
  if (status) fclose(status);
  return kib;
}
