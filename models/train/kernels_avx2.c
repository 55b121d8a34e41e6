#define KERNELS_TABLE train_kernels_avx2
#define KERNELS_NAME "avx2"
#include "models/train/kernels_body.h"
