/* What the trainer makes of images:
 *   augment SEED CHANNELS HEIGHT WIDTH ORDER CHANGES PIXELS VALUES
 * ORDER: 0 rgb, 1 bgr, 2 gray. CHANGES: mirror,pad,zoom,crop,aspect,blur,soften,brightness,contrast,saturation,cutout. PIXELS:
 * 8-bit HWC images one after the other, the draws of image i being those of rng_make(SEED, 0, i); VALUES: float32 HWC. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "models/train/augment.h"

static bool parse_changes(const char *text, struct augmentation *a) {
  int mirror;
  int count = sscanf(text, "%d,%d,%lf,%lf,%lf,%lf,%lf,%lf,%lf,%lf,%d", &mirror, &a->pad, &a->zoom, &a->crop, &a->aspect,
                     &a->blur, &a->soften, &a->brightness, &a->contrast, &a->saturation, &a->cutout);
  a->mirror = mirror != 0;
  return count == 11;
}

int main(int argc, char **argv) {
  struct augmentation augmentation = {0};
  struct hwgq_error error;
  if (argc != 9 || !parse_changes(argv[6], &augmentation) || augmentation_check(&augmentation, &error) != HWGQ_OK) return 2;
  uint64_t seed = strtoull(argv[1], NULL, 10);
  struct hwgq_shape shape = {atoi(argv[2]), atoi(argv[3]), atoi(argv[4])};
  struct hwgq_preprocess preprocess = {
      .order = (enum hwgq_channel_order)atoi(argv[5]), .mean = {104, 117, 123.5f}, .scale = {1.0f / 64, 1.0f / 32, 1.0f / 64}};
  size_t size = (size_t)shape.channels * (size_t)shape.height * (size_t)shape.width;
  FILE *in = fopen(argv[7], "rb"), *out = fopen(argv[8], "wb");
  uint8_t *pixels = malloc(size);
  float *values = calloc(size, sizeof *values), *scratch = calloc(size, sizeof *scratch);
  if (in == NULL || out == NULL || pixels == NULL || values == NULL || scratch == NULL) return 1;
  for (uint64_t i = 0; fread(pixels, 1, size, in) == size; i++) {
    struct rng rng = rng_make(seed, 0, i);
    augment_image(&augmentation, &preprocess, shape, pixels, &rng, values, scratch);
    if (fwrite(values, sizeof *values, size, out) != size) return 1;
  }
  free(pixels);
  free(values);
  free(scratch);
  fclose(in);
  return fclose(out) != 0;
}
