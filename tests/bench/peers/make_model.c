/* Writes a random model of a network and images for it, all that the engines under comparison read:
 *   peers-make-model NETWORK FOLDER BITS
 * BITS: of the first convolution's weights, 8 or 16.
 *   FOLDER/NETWORK.hwgq         thresholds at half steps, (k - 1/2) step: what peers express with one rounding
 *   FOLDER/NETWORK-paper.hwgq   the same weights with the paper's quantizer (zero threshold at 0): for the engine here alone
 *   FOLDER/NETWORK.pixels       PEER_IMAGES images, HWC, 8 bits
 *   FOLDER/NETWORK.input        the same, preprocessed: CHW, float32 */
#include "models/networks/networks.h"
#include "tests/bench/peers/images.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum hwgq_status make_model(const struct networks_entry *entry, bool half_step, int bits, const char *path,
                                   struct hwgq_error *error) {
  struct hwgq_model model = {.preprocess = entry->preprocess, .class_count = entry->class_count};
  struct hwgq_quantizer quantizer;
  enum hwgq_status status = hwgq_quantizer_design(3, true, half_step, &quantizer, error);
  if (!status) status = networks_build(entry->name, entry->input, entry->class_count, 1, &quantizer, &model.network, error);
  if (!status) status = networks_randomize(model.network, &model.preprocess, 1, 4, error);
  if (!status) status = hwgq_network_round_pixels(model.network, &model.preprocess, bits, error);
  char **labels = calloc((size_t)entry->class_count, sizeof *labels);
  char(*names)[24] = calloc((size_t)entry->class_count, sizeof *names);
  if (!status && (!labels || !names)) status = hwgq_fail(error, HWGQ_ERROR_MEMORY, "out of memory");
  for (int i = 0; !status && i < entry->class_count; i++) {
    snprintf(names[i], sizeof names[i], "class %d", i);
    labels[i] = names[i];
  }
  char provenance[] = "{\"weights\":\"random\"}";
  model.labels = labels;
  model.provenance = provenance;
  if (!status) status = hwgq_model_write(&model, path, error);
  free(labels);
  free(names);
  hwgq_network_destroy(model.network);
  return status;
}

/* Other images than those the batch norms were calibrated on. */
static enum hwgq_status make_images(const struct networks_entry *entry, const char *folder, struct hwgq_error *error) {
  const size_t count = (size_t)entry->input.channels * (size_t)entry->input.height * (size_t)entry->input.width;
  uint8_t *pixels = malloc(count);
  float *input = malloc(count * sizeof *input);
  char path[2][1024];
  snprintf(path[0], sizeof path[0], "%s/%s.pixels", folder, entry->name);
  snprintf(path[1], sizeof path[1], "%s/%s.input", folder, entry->name);
  FILE *file[2] = {fopen(path[0], "wb"), fopen(path[1], "wb")};
  bool good = pixels && input && file[0] && file[1];
  for (int i = 0; good && i < PEER_IMAGES; i++) {
    networks_image(entry->input, 1, 100 + i, pixels);
    hwgq_preprocess_to_float(&entry->preprocess, entry->input, pixels, input);
    good = fwrite(pixels, 1, count, file[0]) == count && fwrite(input, sizeof *input, count, file[1]) == count;
  }
  for (int i = 0; i < 2; i++)
    if (file[i] && fclose(file[i])) good = false;
  free(pixels);
  free(input);
  return good ? HWGQ_OK : hwgq_fail(error, HWGQ_ERROR_IO, "cannot write images to %s", folder);
}

int main(int argc, char **argv) {
  struct hwgq_error error = {""};
  const struct networks_entry *entry = argc == 4 ? networks_find(argv[1]) : NULL;
  if (!entry) {
    fprintf(stderr, "usage: peers-make-model NETWORK FOLDER BITS\n");
    return 2;
  }
  char path[1024];
  enum hwgq_status status = HWGQ_OK;
  for (int half_step = 0; !status && half_step < 2; half_step++) {
    snprintf(path, sizeof path, "%s/%s%s.hwgq", argv[2], entry->name, half_step ? "" : "-paper");
    status = make_model(entry, half_step, atoi(argv[3]), path, &error);
  }
  if (!status) status = make_images(entry, argv[2], &error);
  if (status) fprintf(stderr, "peers-make-model: %s\n", error.message);
  return status ? 1 : 0;
}
