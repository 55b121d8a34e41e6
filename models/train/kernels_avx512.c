#define KERNELS_TABLE train_kernels_avx512
#define KERNELS_NAME "avx512"
#include "models/train/kernels_body.h"
