/* Makes the pictures of this folder: one synthetic picture in every kind of JPEG that a camera, a printer or an attacker makes.
 *   baseline, progressive, gray         the same picture in the usual kinds
 *   cmyk, ycck                          as Adobe writes them: inverted
 *   cmyk-plain                          without Adobe's marker: ink as it is
 *   orientation-1 ... -8                stored turned, with the EXIF tag that turns it back
 *   odd                                 17x13, chroma at half size
 *   one                                 1x1
 *   large                               400x300, for decoding at reduced scales
 *   truncated, truncated-progressive    cut off in the middle
 *   no-end                              baseline without its end marker: complete
 *   scans                               127 scans
 * usage: make FOLDER */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

enum { WIDTH = 96, HEIGHT = 64 };

/* A slope of color with a disk in the upper left and a bar below the middle: no two orientations look alike. */
static void picture(int width, int height, int x, int y, uint8_t rgb[3]) {
  double u = (x + 0.5) / width, v = (y + 0.5) / height;
  rgb[0] = (uint8_t)(40 + 160 * u);
  rgb[1] = (uint8_t)(60 + 120 * v);
  rgb[2] = (uint8_t)(200 - 120 * u * v);
  if (hypot((u - 0.25) * width / height, v - 0.3) < 0.2) memcpy(rgb, (uint8_t[]){220, 40, 30}, 3);
  if (u > 0.2 && u < 0.9 && v > 0.65 && v < 0.8) memcpy(rgb, (uint8_t[]){30, 30, 140}, 3);
}

struct file {
  const char *name;
  int width, height;
  J_COLOR_SPACE space; /* stored */
  int orientation;     /* 0: no EXIF */
  int sampling;        /* chroma: 1 full, 2 half size */
  int progressive, plain_cmyk, scans;
  double keep; /* part of the file that is written; 0: all; negative: all but so many bytes */
};

static void write_exif(struct jpeg_compress_struct *jpeg, int orientation) {
  const uint8_t exif[] = {'E', 'x',  'i', 'f', 0, 0, 'M', 'M', 0, 42,
                          0,   0,    0,   8,   0, 1, /* one entry in the directory */
                          1,   0x12, 0,   3,   0, 0, 0,   1,   0, (uint8_t)orientation,
                          0,   0,    0,   0,   0, 0};
  jpeg_write_marker(jpeg, JPEG_APP0 + 1, exif, sizeof exif);
}

/* The pixel of the upright picture that is stored at (x, y). */
static void stored_pixel(const struct file *file, int x, int y, uint8_t rgb[3]) {
  int w = file->width, h = file->height, sx = x, sy = y;
  switch (file->orientation) {
  case 2:
    sx = w - 1 - x;
    break;
  case 3:
    sx = w - 1 - x, sy = h - 1 - y;
    break;
  case 4:
    sy = h - 1 - y;
    break;
  case 5:
    sx = y, sy = x;
    break;
  case 6:
    sx = w - 1 - y, sy = x;
    break; /* stored row 0 is the picture's right side */
  case 7:
    sx = w - 1 - y, sy = h - 1 - x;
    break;
  case 8:
    sx = y, sy = h - 1 - x;
    break; /* stored row 0 is the picture's left side, from the bottom */
  default:
    break;
  }
  picture(w, h, sx, sy, rgb);
}

static void fill_row(const struct file *file, int width, int y, uint8_t *row) {
  for (int x = 0; x < width; x++) {
    uint8_t rgb[3];
    stored_pixel(file, x, y, rgb);
    if (file->space == JCS_GRAYSCALE) {
      *row++ = (uint8_t)(0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] + 0.5);
    } else if (file->space == JCS_CMYK || file->space == JCS_YCCK) {
      int black = 255 - (rgb[0] > rgb[1] ? rgb[0] > rgb[2] ? rgb[0] : rgb[2] : rgb[1] > rgb[2] ? rgb[1] : rgb[2]);
      for (int c = 0; c < 3; c++) {
        int light = black == 255 ? 255 : rgb[c] * 255 / (255 - black);
        *row++ = (uint8_t)(file->plain_cmyk ? 255 - light : light);
      }
      *row++ = (uint8_t)(file->plain_cmyk ? black : 255 - black);
    } else {
      memcpy(row, rgb, 3);
      row += 3;
    }
  }
}

/* DC, then every AC coefficient in a scan of its own, then the last bit of each in another one. */
static void many_scans(struct jpeg_compress_struct *jpeg, jpeg_scan_info scans[127]) {
  for (int i = 0; i < 127; i++) {
    int k = i < 64 ? i : i - 63;
    scans[i] = (jpeg_scan_info){1, {0, 0, 0, 0}, k, k, i < 64 ? 0 : 1, i == 0 ? 0 : i < 64 ? 1 : 0};
  }
  jpeg->scan_info = scans;
  jpeg->num_scans = 127;
}

static void make(const char *folder, const struct file *file) {
  struct jpeg_compress_struct jpeg;
  struct jpeg_error_mgr errors;
  jpeg_scan_info scans[127];
  unsigned char *bytes = NULL;
  unsigned long length = 0;
  char path[512];
  int swap = file->orientation >= 5;
  int width = swap ? file->height : file->width, height = swap ? file->width : file->height;
  int four = file->space == JCS_CMYK || file->space == JCS_YCCK;
  jpeg.err = jpeg_std_error(&errors);
  jpeg_create_compress(&jpeg);
  jpeg_mem_dest(&jpeg, &bytes, &length);
  jpeg.image_width = (JDIMENSION)width;
  jpeg.image_height = (JDIMENSION)height;
  jpeg.input_components = file->space == JCS_GRAYSCALE ? 1 : four ? 4 : 3;
  jpeg.in_color_space = file->space == JCS_GRAYSCALE ? JCS_GRAYSCALE : four ? JCS_CMYK : JCS_RGB;
  jpeg_set_defaults(&jpeg);
  jpeg_set_colorspace(&jpeg, file->space);
  jpeg_set_quality(&jpeg, 92, TRUE);
  jpeg.comp_info[0].h_samp_factor = jpeg.comp_info[0].v_samp_factor = file->sampling;
  if (four) jpeg.comp_info[3].h_samp_factor = jpeg.comp_info[3].v_samp_factor = file->sampling;
  jpeg.write_Adobe_marker = four && !file->plain_cmyk;
  jpeg.optimize_coding = TRUE;
  if (file->progressive) jpeg_simple_progression(&jpeg);
  if (file->scans) many_scans(&jpeg, scans);
  jpeg_start_compress(&jpeg, TRUE);
  if (file->orientation) write_exif(&jpeg, file->orientation);
  uint8_t *row = malloc((size_t)width * 4);
  if (!row) abort();
  for (int y = 0; y < height; y++) {
    fill_row(file, width, y, row);
    jpeg_write_scanlines(&jpeg, &row, 1);
  }
  free(row);
  jpeg_finish_compress(&jpeg);
  jpeg_destroy_compress(&jpeg);
  if (file->keep > 0) length = (unsigned long)((double)length * file->keep);
  if (file->keep < 0) length -= (unsigned long)-file->keep;
  snprintf(path, sizeof path, "%s/%s.jpg", folder, file->name);
  FILE *out = fopen(path, "wb");
  if (!out || fwrite(bytes, 1, length, out) != length || fclose(out)) {
    perror(path);
    exit(1);
  }
  free(bytes);
}

int main(int argc, char **argv) {
  static const struct file files[] = {
      {"baseline", WIDTH, HEIGHT, JCS_YCbCr, 0, 2, 0, 0, 0, 0},
      {"progressive", WIDTH, HEIGHT, JCS_YCbCr, 0, 2, 1, 0, 0, 0},
      {"gray", WIDTH, HEIGHT, JCS_GRAYSCALE, 0, 1, 0, 0, 0, 0},
      {"cmyk", WIDTH, HEIGHT, JCS_CMYK, 0, 1, 0, 0, 0, 0},
      {"ycck", WIDTH, HEIGHT, JCS_YCCK, 0, 2, 0, 0, 0, 0},
      {"cmyk-plain", WIDTH, HEIGHT, JCS_CMYK, 0, 1, 0, 1, 0, 0},
      {"orientation-1", WIDTH, HEIGHT, JCS_YCbCr, 1, 1, 0, 0, 0, 0},
      {"orientation-2", WIDTH, HEIGHT, JCS_YCbCr, 2, 1, 0, 0, 0, 0},
      {"orientation-3", WIDTH, HEIGHT, JCS_YCbCr, 3, 1, 0, 0, 0, 0},
      {"orientation-4", WIDTH, HEIGHT, JCS_YCbCr, 4, 1, 0, 0, 0, 0},
      {"orientation-5", WIDTH, HEIGHT, JCS_YCbCr, 5, 1, 0, 0, 0, 0},
      {"orientation-6", WIDTH, HEIGHT, JCS_YCbCr, 6, 1, 0, 0, 0, 0},
      {"orientation-7", WIDTH, HEIGHT, JCS_YCbCr, 7, 1, 0, 0, 0, 0},
      {"orientation-8", WIDTH, HEIGHT, JCS_YCbCr, 8, 1, 0, 0, 0, 0},
      {"odd", 17, 13, JCS_YCbCr, 0, 2, 0, 0, 0, 0},
      {"one", 1, 1, JCS_YCbCr, 0, 2, 0, 0, 0, 0},
      {"large", 400, 300, JCS_YCbCr, 0, 2, 0, 0, 0, 0},
      {"truncated", WIDTH, HEIGHT, JCS_YCbCr, 0, 2, 0, 0, 0, 0.7},
      {"truncated-progressive", WIDTH, HEIGHT, JCS_YCbCr, 0, 2, 1, 0, 0, 0.7},
      {"no-end", WIDTH, HEIGHT, JCS_YCbCr, 0, 2, 0, 0, 0, -2},
      {"scans", 32, 24, JCS_GRAYSCALE, 0, 1, 0, 0, 1, 0},
  };
  if (argc != 2) return 2;
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) make(argv[1], &files[i]);
  return 0;
}
