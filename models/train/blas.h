/* OpenBLAS, loaded when the trainer starts: which kernels it uses is decided by an environment variable at load time. */
#ifndef TRAIN_BLAS_H
#define TRAIN_BLAS_H

#include "engine/hwgq.h"
#include "models/train/dot.h"

struct blas {
  void *library;
  void (*gemm)(int order, int transpose_a, int transpose_b, int m, int n, int k, float alpha, const float *a, int lda,
               const float *b, int ldb, float beta, float *c, int ldc);
  const struct dot_kernels
      *dot;      /* for layers that can be computed in narrow numbers; NULL: all in float32. blas_load leaves it so. */
  char core[32]; /* the kernels in use, as OpenBLAS calls them: "SkylakeX", "Haswell", ... */
};

/* core: a core type of OpenBLAS (OPENBLAS_CORETYPE); NULL: the environment's, or else what suits this CPU. OpenBLAS 0.3.21
 * knows no CPU newer than itself and would fall back to SSE3 kernels there. The kernels are tried in a child process first and
 * must give right products there: a core type that crashes or computes wrongly is refused (or passed over when NULL). Changes
 * the environment of the process; call it once, before other threads exist. */
enum hwgq_status blas_load(const char *core, struct blas *blas, struct hwgq_error *error);
void blas_unload(struct blas *blas);

/* Row-major C = op(A) op(B) + beta C: C is m x n, op(A) m x k, op(B) k x n. One thread. */
void blas_gemm(const struct blas *blas, bool transpose_a, bool transpose_b, int m, int n, int k, const float *a, int lda,
               const float *b, int ldb, float beta, float *c, int ldc);

#endif
