/* Whole files. read() into memory instead of mmap: another process that truncates the file then causes an error message, not
 * a SIGBUS in the middle of inference. */
#include "engine/storage.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *hwgq_storage_label(const char *path) {
  size_t length = strlen(path), most = 200;
  return length > most ? path + length - most : path;
}

static enum hwgq_status fail_errno(struct hwgq_error *error, const char *path, const char *what) {
  int code = errno;
  char text[128];
  /* The GNU form returns the text, which need not be in the buffer. */
  return hwgq_fail(error, code == ENOMEM ? HWGQ_ERROR_MEMORY : HWGQ_ERROR_IO, "%s: %s: %s", hwgq_storage_label(path), what,
                   strerror_r(code, text, sizeof text));
}

static enum hwgq_status read_all(int file, const char *path, uint8_t *bytes, size_t length, struct hwgq_error *error) {
  size_t done = 0;
  while (done < length) {
    size_t step = length - done < ((size_t)1 << 30) ? length - done : (size_t)1 << 30;
    ssize_t got = read(file, bytes + done, step);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno(error, path, "cannot read");
    if (got == 0)
      return hwgq_fail(error, HWGQ_ERROR_IO, "%s: became shorter while it was read (%zu of %zu bytes): try again",
                       hwgq_storage_label(path), done, length);
    done += (size_t)got;
  }
  return HWGQ_OK;
}

static enum hwgq_status read_open_file(int file, const char *path, uint64_t limit, uint8_t **bytes, size_t *length,
                                       struct hwgq_error *error) {
  struct stat info;
  if (fstat(file, &info)) return fail_errno(error, path, "cannot read");
  if (!S_ISREG(info.st_mode))
    return hwgq_fail(error, HWGQ_ERROR_IO, "%s: is %s, not a regular file", hwgq_storage_label(path),
                     S_ISDIR(info.st_mode) ? "a directory" : "a device, pipe or socket");
  if ((uint64_t)info.st_size > limit)
    return hwgq_fail(error, HWGQ_ERROR_LIMIT, "%s: has %llu bytes, at most %llu are allowed", hwgq_storage_label(path),
                     (unsigned long long)info.st_size, (unsigned long long)limit);
  size_t size = (size_t)info.st_size;
  uint8_t *content = malloc(size + 1);
  if (!content) return hwgq_fail(error, HWGQ_ERROR_MEMORY, "%s: out of memory for %zu bytes", hwgq_storage_label(path), size);
  enum hwgq_status status = read_all(file, path, content, size, error);
  if (status) {
    free(content);
    return status;
  }
  content[size] = 0;
  *bytes = content;
  *length = size;
  return HWGQ_OK;
}

enum hwgq_status hwgq_storage_read(const char *path, uint64_t limit, uint8_t **bytes, size_t *length,
                                   struct hwgq_error *error) {
  /* O_NONBLOCK: opening a pipe that nobody writes to must not hang; it is refused afterwards. */
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return fail_errno(error, path, "cannot open");
  enum hwgq_status status = read_open_file(file, path, limit, bytes, length, error);
  close(file);
  return status;
}

static enum hwgq_status write_chunk(int file, const char *path, const struct hwgq_chunk *chunk, struct hwgq_error *error) {
  size_t done = 0;
  while (done < chunk->length) {
    size_t step = chunk->length - done < ((size_t)1 << 30) ? chunk->length - done : (size_t)1 << 30;
    ssize_t put = write(file, (const uint8_t *)chunk->bytes + done, step);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return fail_errno(error, path, "cannot write");
    done += (size_t)put;
  }
  return HWGQ_OK;
}

/* A new file beside `path`, with the permissions that open() gives under the process's umask (mkstemp's would be private). */
static int create_temporary(const char *path, char *name, size_t size) {
  for (int attempt = 0; attempt < 100; attempt++) {
    snprintf(name, size, "%s.%ld-%d.tmp", path, (long)getpid(), attempt);
    int file = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file >= 0 || errno != EEXIST) return file;
  }
  return -1;
}

/* The rename itself must reach the disk too. Not every file system can sync a directory, so a failure is not one of the
 * write. */
static void sync_directory(const char *path, char *buffer, size_t size) {
  const char *slash = strrchr(path, '/');
  int length = !slash ? 0 : slash == path ? 1 : (int)(slash - path);
  snprintf(buffer, size, "%.*s", slash ? length : 1, slash ? path : ".");
  int directory = open(buffer, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return;
  fsync(directory);
  close(directory);
}

static enum hwgq_status out_of_memory(const char *path, struct hwgq_error *error) {
  return hwgq_fail(error, HWGQ_ERROR_MEMORY, "%s: out of memory", hwgq_storage_label(path));
}

/* The file that is to be replaced, malloc'ed: `path` without its symbolic links, so that a link stays one. Only a regular file
 * may be there: a rename would put a file in a device's place. */
static enum hwgq_status resolve(const char *path, char **target, struct hwgq_error *error) {
  struct stat info;
  if (stat(path, &info) == 0) {
    if (S_ISDIR(info.st_mode))
      return hwgq_fail(error, HWGQ_ERROR_IO, "%s: is a directory, cannot write a file there: add a file name",
                       hwgq_storage_label(path));
    if (!S_ISREG(info.st_mode))
      return hwgq_fail(error, HWGQ_ERROR_IO, "%s: is a device, pipe or socket and is not replaced: name a file",
                       hwgq_storage_label(path));
    *target = realpath(path, NULL);
    return *target ? HWGQ_OK : fail_errno(error, path, "cannot replace");
  }
  if (lstat(path, &info) == 0)
    return hwgq_fail(error, HWGQ_ERROR_IO, "%s: is a symbolic link to nothing: remove it or make what it points to",
                     hwgq_storage_label(path));
  *target = strdup(path);
  return *target ? HWGQ_OK : out_of_memory(path, error);
}

/* `path` has been resolved. */
static enum hwgq_status replace(const char *path, const struct hwgq_chunk *chunks, size_t count, struct hwgq_error *error) {
  size_t size = strlen(path) + 64;
  char *name = malloc(size);
  if (!name) return out_of_memory(path, error);
  enum hwgq_status status = HWGQ_OK;
  int file = create_temporary(path, name, size);
  if (file < 0) {
    status = fail_errno(error, path, "cannot create a file in its directory");
    free(name);
    return status;
  }
  for (size_t i = 0; !status && i < count; i++) status = write_chunk(file, path, &chunks[i], error);
  if (!status && fsync(file)) status = fail_errno(error, path, "cannot write");
  if (close(file) && !status) status = fail_errno(error, path, "cannot write");
  if (!status && rename(name, path)) status = fail_errno(error, path, "cannot replace");
  if (status)
    unlink(name);
  else
    sync_directory(path, name, size);
  free(name);
  return status;
}

enum hwgq_status hwgq_storage_replace(const char *path, const struct hwgq_chunk *chunks, size_t count,
                                      struct hwgq_error *error) {
  char *target = NULL;
  enum hwgq_status status = resolve(path, &target, error);
  if (!status) status = replace(target, chunks, count, error);
  free(target);
  return status;
}
