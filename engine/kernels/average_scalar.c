/* Averages over windows of float pixels. */
#define AVERAGE_NAME hwgq_average_scalar
#include "engine/kernels/average_body.h"
