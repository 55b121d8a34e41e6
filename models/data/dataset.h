/* Labelled images in memory, from whatever users keep them in. */
#ifndef DATASET_H
#define DATASET_H

#include "engine/hwgq.h"

enum dataset_split { DATASET_TRAIN, DATASET_TEST, DATASET_VAL };

struct dataset {
  int count, height, width, channels; /* channels: 3 (RGB) or 1 */
  uint8_t *pixels;                    /* [count][height][width][channels] */
  int *labels;                        /* [count] */
  int class_count;
  char **class_names;       /* [class_count]; by folder name in byte order, or "0", "1", ... when the source has no names */
  char **file_names;        /* [count], relative to the source; "#7" for sources without files */
  enum dataset_split split; /* whose images these are: val's may stand in for test's, and the other way around */
  bool undivided;           /* the source has no train/ and test/: these are all its images, whichever split was asked for */
};

/* Opens `path`, which may be
 *   - a folder with train/CLASS/IMAGE and test/CLASS/IMAGE (also val/), or just CLASS/IMAGE;
 *   - the same inside a .tar, .tar.xz, .tar.gz or .zip;
 *   - a folder with MNIST / Fashion-MNIST IDX files (train-images-idx3-ubyte[.gz], t10k-...);
 *   - a folder with CIFAR-10 binary batches (data_batch_1.bin ... test_batch.bin).
 * Images are preprocessed (image_preprocess) to `shape` by `preprocess`. Messages name the file that was damaged or missing.
 * `limit` > 0 keeps only the first `limit` images, spread evenly over the classes.
 *
 * Folders and archives: train/, test/ and val/ may lie within one more folder; DATASET_TEST takes test/, or val/ where there is
 * no test/, DATASET_VAL the other way around, and of the other kinds of sources the test images. When one split is there and
 * the wanted one is not, that is an error; without any, everything is the one set, whichever split is asked for. Folders may be
 * nested below CLASS. Images come in the byte order of their paths. Classes are those of all splits together, so a class that
 * one split lacks does not shift labels. val/images with val_annotations.txt (Tiny ImageNet) gets its classes from that list,
 * and test/images, which has none, is left out beside it. Hidden files and files that are no images are passed over. Links are
 * followed: all in a folder; in an archive those to its files, and others are refused where they could stand for images. */
enum hwgq_status dataset_open(const char *path, enum dataset_split split, const struct hwgq_preprocess *preprocess,
                              struct hwgq_shape shape, int limit, struct dataset **dataset, struct hwgq_error *error);
void dataset_destroy(struct dataset *dataset);

#endif
