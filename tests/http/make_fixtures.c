/* Networks with random weights, and JPEG images, for the tests of the daemon.
 *   make_fixtures FOLDER: writes color.hwgq and other.hwgq (vgg-small, different weights), slow.hwgq (vgg-small, full width,
 * sign activations), gray.hwgq (lenet), and image-0.jpg to image-9.jpg (100x80 color; the last two gray and progressive). */
#include "models/networks/networks.h"
#include "tests/support/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

enum { WIDTH = 100, HEIGHT = 80, IMAGES = 10, CLASSES = 10 };

static void stop(const char *what, const struct hwgq_error *error) {
  fprintf(stderr, "make_fixtures: %s: %s\n", what, error->message);
  exit(1);
}

static void write_model(const char *folder, const char *file, const char *network_name, struct hwgq_shape input, double width,
                        uint64_t seed) {
  struct support_random random = {seed};
  struct hwgq_model model = {.class_count = CLASSES};
  struct hwgq_quantizer quantizer;
  struct hwgq_error error;
  char path[1024];
  if (hwgq_quantizer_design(3, true, false, &quantizer, &error) ||
      networks_build(network_name, input, CLASSES, width, width < 1 ? &quantizer : NULL, &model.network, &error) ||
      hwgq_network_infer(model.network, &error) || hwgq_network_allocate_parameters(model.network, &error)) {
    stop(file, &error);
  }
  support_fill_parameters(model.network, &random);
  /* Takes seconds for a wide network, which only has to be slow: as with sign activations, whatever they are. */
  if (width < 1) support_calibrate(model.network, &random);
  model.preprocess.order = input.channels == 3 ? HWGQ_RGB : HWGQ_GRAY;
  for (int c = 0; c < 3; c++) {
    model.preprocess.mean[c] = 120;
    model.preprocess.scale[c] = 1.0f / 64;
  }
  model.provenance = strdup("{\"made_by\":\"make_fixtures\"}");
  model.labels = malloc(CLASSES * sizeof *model.labels);
  for (int i = 0; i < CLASSES; i++) {
    char label[32];
    snprintf(label, sizeof label, "class \"%d\" \xc3\xa9", i); /* quotes and UTF-8 must survive */
    model.labels[i] = strdup(label);
  }
  snprintf(path, sizeof path, "%s/%s", folder, file);
  if (hwgq_model_write(&model, path, &error)) stop(path, &error);
  hwgq_network_destroy(model.network);
  for (int i = 0; i < CLASSES; i++) free(model.labels[i]);
  free(model.labels);
  free(model.provenance);
}

static void write_image(const char *folder, int number) {
  struct jpeg_compress_struct jpeg;
  struct jpeg_error_mgr manager;
  struct support_random random = {(uint64_t)number + 100};
  bool gray = number >= IMAGES - 2;
  int channels = gray ? 1 : 3, frequency[3], phase[3];
  char path[1024];
  snprintf(path, sizeof path, "%s/image-%d.jpg", folder, number);
  FILE *stream = fopen(path, "wb");
  if (!stream) exit(1);
  jpeg.err = jpeg_std_error(&manager);
  jpeg_create_compress(&jpeg);
  jpeg_stdio_dest(&jpeg, stream);
  jpeg.image_width = WIDTH;
  jpeg.image_height = HEIGHT;
  jpeg.input_components = channels;
  jpeg.in_color_space = gray ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(&jpeg);
  jpeg_set_quality(&jpeg, 80, TRUE);
  if (gray) jpeg_simple_progression(&jpeg);
  for (int c = 0; c < 3; c++) {
    frequency[c] = support_random_int(&random, 1, 9);
    phase[c] = support_random_int(&random, 0, 255);
  }
  jpeg_start_compress(&jpeg, TRUE);
  for (int y = 0; y < HEIGHT; y++) {
    JSAMPLE row[WIDTH * 3], *rows[1] = {row};
    for (int x = 0; x < WIDTH * channels; x++) {
      int c = x % channels;
      row[x] = (JSAMPLE)((x / channels * frequency[c] + y * frequency[(c + 1) % 3] + phase[c]) & 255);
    }
    jpeg_write_scanlines(&jpeg, rows, 1);
  }
  jpeg_finish_compress(&jpeg);
  jpeg_destroy_compress(&jpeg);
  fclose(stream);
}

int main(int argc, char **argv) {
  const struct hwgq_shape color = {3, 32, 32}, gray = {1, 28, 28};
  if (argc != 2) {
    fprintf(stderr, "usage: make_fixtures FOLDER\n");
    return 2;
  }
  write_model(argv[1], "color.hwgq", "vgg-small", color, 0.25, 1);
  write_model(argv[1], "other.hwgq", "vgg-small", color, 0.25, 2);
  write_model(argv[1], "slow.hwgq", "vgg-small", color, 1, 4);
  write_model(argv[1], "gray.hwgq", "lenet", gray, 0.5, 3);
  for (int i = 0; i < IMAGES; i++) write_image(argv[1], i);
  return 0;
}
