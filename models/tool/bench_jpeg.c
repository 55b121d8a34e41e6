#include "models/tool/bench_jpeg.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

#include "models/networks/networks.h"

/* libjpeg ends the program on errors unless it is told otherwise. Here only memory can fail. */
struct handler {
  struct jpeg_error_mgr manager;
  jmp_buf failed;
};

static void fail(j_common_ptr info) {
  longjmp(((struct handler *)info->err)->failed, 1);
}

/* False: no memory. */
static bool compress(const uint8_t *pixels, int width, int height, unsigned char **bytes, unsigned long *length) {
  struct jpeg_compress_struct jpeg;
  struct handler handler;
  jpeg.err = jpeg_std_error(&handler.manager);
  handler.manager.error_exit = fail;
  if (setjmp(handler.failed)) {
    jpeg_destroy_compress(&jpeg);
    return false;
  }
  jpeg_create_compress(&jpeg);
  jpeg_mem_dest(&jpeg, bytes, length);
  jpeg.image_width = (JDIMENSION)width;
  jpeg.image_height = (JDIMENSION)height;
  jpeg.input_components = 3;
  jpeg.in_color_space = JCS_RGB;
  jpeg_set_defaults(&jpeg);
  jpeg_set_quality(&jpeg, 75, TRUE);
  jpeg_start_compress(&jpeg, TRUE);
  while (jpeg.next_scanline < jpeg.image_height) {
    JSAMPROW row = (JSAMPROW)(pixels + (size_t)jpeg.next_scanline * (size_t)width * 3);
    jpeg_write_scanlines(&jpeg, &row, 1);
  }
  jpeg_finish_compress(&jpeg);
  jpeg_destroy_compress(&jpeg);
  return true;
}

enum hwgq_status bench_jpeg(int width, int height, uint8_t **bytes, size_t *length, struct hwgq_error *error) {
  unsigned char *made = NULL;
  unsigned long size = 0;
  uint8_t *pixels = malloc((size_t)width * (size_t)height * 3);
  if (pixels) networks_image((struct hwgq_shape){3, height, width}, 1, 0, pixels);
  const bool ready = pixels && compress(pixels, width, height, &made, &size);
  free(pixels);
  if (!ready) {
    free(made);
    return hwgq_fail(error, HWGQ_ERROR_MEMORY, "bench: no memory for a JPEG of %dx%d pixels", width, height);
  }
  *bytes = made;
  *length = size;
  return HWGQ_OK;
}
