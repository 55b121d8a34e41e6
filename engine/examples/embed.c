/* Classifies raw pixels with libhwgq, in a program of its own.
 *
 *   cc embed.c -o embed $(pkg-config --cflags --libs hwgq)
 *   ./embed /usr/local/share/hwgqd/models/zoo/cifar10.hwgq < pixels
 *
 * Standard input: height x width x channels bytes, in the network's channel order and size (cifar10: 32 x 32 x RGB). */
#include <hwgq.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
  struct hwgq_error error;
  struct hwgq_model *model;
  struct hwgq_plan *plan;
  if (argc != 2 || hwgq_model_read(argv[1], &model, &error) ||
      hwgq_plan_create(model->network, &model->preprocess, NULL, &plan, &error)) {
    fprintf(stderr, "embed: %s\n", argc == 2 ? error.message : "usage: embed MODEL < PIXELS");
    return 1;
  }
  struct hwgq_shape input = model->network->input;
  size_t size = (size_t)input.channels * (size_t)input.height * (size_t)input.width;
  unsigned char *pixels = malloc(size);
  float *scores = malloc((size_t)model->class_count * sizeof *scores);
  void *scratch = aligned_alloc(64, (hwgq_plan_scratch_bytes(plan) + 63) / 64 * 64);
  struct hwgq_prediction best[5];
  if (!pixels || !scores || !scratch || fread(pixels, 1, size, stdin) != size) return 1;
  hwgq_run(plan, scratch, pixels, scores); /* again and again, without allocation; other threads: a scratch of their own */
  int count = hwgq_top_k(scores, model->class_count, 5, best);
  for (int i = 0; i < count; i++) printf("%.9g %s\n", best[i].probability, model->labels[best[i].class_index]);
  free(scratch);
  free(scores);
  free(pixels);
  hwgq_plan_destroy(plan);
  hwgq_model_destroy(model);
  return 0;
}
