/* The best classes of a vector of scores: a heap of the best so far, its worst one on top, in the output array itself, so that
 * it takes O(count log k) steps and no memory whatever k is. */
#include "engine/hwgq.h"

static bool is_better(const struct hwgq_prediction *a, const struct hwgq_prediction *b) {
  return a->probability > b->probability || (a->probability == b->probability && a->class_index < b->class_index);
}

/* Puts `entry` in the heap of `count` whose place `place` is free and has nothing worse than `entry` above it. */
static void sift_down(struct hwgq_prediction *heap, int count, int place, struct hwgq_prediction entry) {
  for (int child; (child = 2 * place + 1) < count; place = child) {
    if (child + 1 < count && is_better(&heap[child], &heap[child + 1])) child++;
    if (!is_better(&entry, &heap[child])) break;
    heap[place] = heap[child];
  }
  heap[place] = entry;
}

int hwgq_top_k(const float *scores, int count, int k, struct hwgq_prediction *predictions) {
  int found = k < count ? k : count;
  if (found <= 0) return 0;
  for (int i = 0; i < found; i++) predictions[i] = (struct hwgq_prediction){i, scores[i]};
  for (int i = found / 2; i-- > 0;) sift_down(predictions, found, i, predictions[i]);
  for (int i = found; i < count; i++) {
    struct hwgq_prediction entry = {i, scores[i]};
    if (is_better(&entry, &predictions[0])) sift_down(predictions, found, 0, entry);
  }
  for (int left = found - 1; left > 0; left--) { /* the worst of what is left goes to the end */
    struct hwgq_prediction last = predictions[left];
    predictions[left] = predictions[0];
    sift_down(predictions, left, 0, last);
  }
  return found;
}
