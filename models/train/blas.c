#include "models/train/blas.h"

#include <dlfcn.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "models/train/rng.h"

/* CBLAS's numbers for its enumerations. */
enum { ROW_MAJOR = 101, NO_TRANSPOSE = 111, TRANSPOSE = 112 };

static const char library_name[] = "libopenblas.so.0";
static const char core_variable[] = "OPENBLAS_CORETYPE";

void blas_gemm(const struct blas *blas, bool transpose_a, bool transpose_b, int m, int n, int k, const float *a, int lda,
               const float *b, int ldb, float beta, float *c, int ldc) {
  blas->gemm(ROW_MAJOR, transpose_a ? TRANSPOSE : NO_TRANSPOSE, transpose_b ? TRANSPOSE : NO_TRANSPOSE, m, n, k, 1.0f, a, lda,
             b, ldb, beta, c, ldc);
}

static enum hwgq_status open_library(struct blas *blas, struct hwgq_error *error) {
  *blas = (struct blas){0};
  setenv("OPENBLAS_NUM_THREADS", "1", 1); /* else it starts threads that nobody uses */
  void *library = dlopen(library_name, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL)
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "cannot load %s (%s): install libopenblas0-pthread", library_name,
                     dlerror());
  void *gemm = dlsym(library, "cblas_sgemm");
  void *set_threads = dlsym(library, "openblas_set_num_threads");
  void *core_name = dlsym(library, "openblas_get_corename");
  if (gemm == NULL || set_threads == NULL || core_name == NULL) {
    dlclose(library);
    return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED,
                     "%s lacks cblas_sgemm or openblas_set_num_threads: install libopenblas0-pthread", library_name);
  }
  /* POSIX lets a function pointer travel through void *, ISO C only through its bytes. */
  void (*set_num_threads)(int);
  char *(*get_corename)(void);
  memcpy(&blas->gemm, &gemm, sizeof gemm);
  memcpy(&set_num_threads, &set_threads, sizeof set_threads);
  memcpy(&get_corename, &core_name, sizeof core_name);
  set_num_threads(1); /* the trainer's own threads each call it */
  snprintf(blas->core, sizeof blas->core, "%s", get_corename());
  blas->library = library;
  return HWGQ_OK;
}

/* One product of random numbers against a plain loop. */
static bool product_is_right(const struct blas *blas, bool transpose_a, bool transpose_b, int m, int n, int k) {
  float *a = malloc(sizeof(float) * (size_t)m * (size_t)k);
  float *b = malloc(sizeof(float) * (size_t)k * (size_t)n);
  float *c = malloc(sizeof(float) * (size_t)m * (size_t)n);
  bool right = a != NULL && b != NULL && c != NULL;
  struct rng rng = rng_make(1, (uint64_t)m << 32 | (uint64_t)n, (uint64_t)k);
  for (int i = 0; right && i < m * k; i++) a[i] = rng_uniform(&rng) - 0.5f;
  for (int i = 0; right && i < k * n; i++) b[i] = rng_uniform(&rng) - 0.5f;
  for (int i = 0; right && i < m * n; i++) c[i] = 1.0f;
  if (right) blas_gemm(blas, transpose_a, transpose_b, m, n, k, a, transpose_a ? m : k, b, transpose_b ? k : n, 1.0f, c, n);
  for (int i = 0; right && i < m; i++) {
    for (int j = 0; j < n; j++) {
      double sum = 1;
      for (int x = 0; x < k; x++)
        sum += (double)(transpose_a ? a[x * m + i] : a[i * k + x]) * (transpose_b ? b[j * k + x] : b[x * n + j]);
      if (!(fabs(sum - (double)c[i * n + j]) < 1e-5 * (k + 10))) right = false;
    }
  }
  free(a);
  free(b);
  free(c);
  return right;
}

/* The trainer's three kinds of product (forward, to the inputs, to the weights) in sizes that meet every remainder. */
static bool products_are_right(const struct blas *blas) {
  static const int sizes[][3] = {{64, 64, 100},  {27, 5, 64},  {1, 10, 300}, {100, 10, 512}, {65, 33, 130},
                                 {192, 64, 256}, {50, 20, 75}, {3, 7, 11},   {130, 96, 17},  {256, 129, 391}};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    for (int kind = 0; kind < 3; kind++)
      if (!product_is_right(blas, kind == 1, kind == 2, sizes[i][0], sizes[i][1], sizes[i][2])) return false;
  }
  return true;
}

enum probe { PROBE_GOOD, PROBE_WRONG, PROBE_CRASHED, PROBE_MISSING };

/* OpenBLAS reads its core type once, when it is loaded, and a wrong kernel may crash: so a child process tries it. */
static enum probe probe(const char *core) {
  pid_t child = fork();
  if (child < 0) return PROBE_CRASHED;
  if (child == 0) {
    struct blas blas;
    if (core != NULL) setenv(core_variable, core, 1);
    if (open_library(&blas, NULL) != HWGQ_OK) _exit(PROBE_MISSING);
    _exit(products_are_right(&blas) ? PROBE_GOOD : PROBE_WRONG);
  }
  int state;
  while (waitpid(child, &state, 0) < 0) {
    if (errno != EINTR) return PROBE_CRASHED;
  }
  return WIFEXITED(state) ? (enum probe)WEXITSTATUS(state) : PROBE_CRASHED;
}

enum hwgq_status blas_load(const char *core, struct blas *blas, struct hwgq_error *error) {
  const char *candidates[4];
  int count = 0;
  if (core != NULL) {
    candidates[count++] = core;
  } else {
    if (getenv(core_variable) == NULL) {
#if defined(__x86_64__)
      if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
          __builtin_cpu_supports("avx512vl"))
        candidates[count++] = "SkylakeX";
      if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) candidates[count++] = "Haswell";
#endif
    }
    candidates[count++] = NULL; /* as the environment says */
  }
  enum probe result = PROBE_CRASHED;
  for (int i = 0; i < count; i++) {
    result = probe(candidates[i]);
    if (result == PROBE_GOOD && candidates[i] != NULL && setenv(core_variable, candidates[i], 1) != 0)
      return hwgq_fail(error, HWGQ_ERROR_MEMORY, "cannot set %s: %s", core_variable, strerror(errno));
    if (result == PROBE_GOOD || result == PROBE_MISSING) return open_library(blas, error);
  }
  return hwgq_fail(error, HWGQ_ERROR_UNSUPPORTED, "%s %s with core type %s: choose another one with --blas-core", library_name,
                   result == PROBE_WRONG ? "gives wrong products" : "crashes", core != NULL ? core : "of its own choice");
}

void blas_unload(struct blas *blas) {
  if (blas->library != NULL) dlclose(blas->library);
  *blas = (struct blas){0};
}
