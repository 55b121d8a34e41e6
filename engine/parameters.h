/* The parameter arrays of a layer as a list: what they are called, how large they are and where the network keeps them. One
 * place knows this; allocation, checking, the .hwgq file and training checkpoints all go through it. */
#ifndef HWGQ_PARAMETERS_H
#define HWGQ_PARAMETERS_H

#include "engine/hwgq.h"

enum {
  HWGQ_MAX_PARAMETERS = 3,   /* arrays of one layer: weight, alpha, bias */
  HWGQ_MAX_NAME = 63,        /* bytes of a layer's or a network's name */
  HWGQ_MAX_FAN_IN = 1 << 24, /* inputs of one output value: 15 * 2^24 still fits a 32-bit accumulator */
};

struct hwgq_parameter {
  const char *name;    /* "weight", "weight_bits", "alpha", "bias", "mean", "variance", "gamma", "beta" */
  int rank;            /* 1: [channels]; 2: [out_channels][bytes]; 4: [out_channels][in/groups][kernel_height][kernel_width] */
  uint64_t extents[4]; /* the first `rank` are used */
  uint64_t count;      /* elements: product of the extents */
  float fill;          /* value of a new array's elements */
  float **floats;      /* where the network keeps the pointer; exactly one of these two is not NULL */
  uint8_t **bits;      /* packed weight bits */
};

/* The arrays of `layer`, in the order in which they are stored in files. The network must have been inferred. Returns how
 * many. */
int hwgq_layer_parameters(const struct hwgq_network *network, struct hwgq_layer *layer,
                          struct hwgq_parameter parameters[HWGQ_MAX_PARAMETERS]);
static inline uint64_t hwgq_parameter_bytes(const struct hwgq_parameter *parameter) {
  return parameter->count * (parameter->bits ? 1 : sizeof(float));
}
static inline void *hwgq_parameter_data(const struct hwgq_parameter *parameter) {
  return parameter->bits ? (void *)*parameter->bits : (void *)*parameter->floats;
}
/* Inputs of one output value of a conv2d or linear layer: in/groups * kernel_height * kernel_width. */
uint64_t hwgq_layer_fan_in(const struct hwgq_network *network, const struct hwgq_layer *layer);

/* Every array is there, every float is finite, no variance is negative, unused weight bits are 0. Messages name layer and
 * array. */
enum hwgq_status hwgq_network_check_parameters(const struct hwgq_network *network, struct hwgq_error *error);

/* 1 to HWGQ_MAX_NAME printable ASCII characters without '/'. `what` ("layer name", "network name") starts the message. */
enum hwgq_status hwgq_check_name(const char *what, const char *name, struct hwgq_error *error);

static inline uint64_t hwgq_shape_elements(struct hwgq_shape shape) {
  return (uint64_t)shape.channels * (uint64_t)shape.height * (uint64_t)shape.width;
}

#endif
