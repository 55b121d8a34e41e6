/* The best classes of a vector of scores. */
#include "engine/hwgq.h"

int hwgq_top_k(const float *scores, int count, int k, struct hwgq_prediction *predictions) {
  int found = 0;
  for (int i = 0; i < count; i++) {
    /* Insertion into a sorted list: k is small. Only a strictly higher score passes another, so equal ones stay in the order
     * of their class index. */
    int place = found;
    while (place > 0 && scores[i] > predictions[place - 1].probability) place--;
    if (place >= k) continue;
    if (found < k) found++;
    for (int j = found - 1; j > place; j--) predictions[j] = predictions[j - 1];
    predictions[place] = (struct hwgq_prediction){i, scores[i]};
  }
  return found;
}
