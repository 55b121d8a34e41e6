/* Body of hwgq_sums_*: included by one file per instruction set, which defines SUMS_NAME, the name of a function, and
 * POPCOUNT(x). */
void SUMS_NAME(const struct hwgq_sums_job *job) {
  const uint32_t *pixel = job->input;
  for (size_t i = 0; i < job->pixels; i++, pixel += job->pixel_step) {
    int32_t sum = 0;
    for (int word = 0; word < job->words; word++) {
      const uint32_t *planes = pixel + (size_t)word * (size_t)job->plane_step;
      for (int p = 0; p < job->planes; p++)
        sum += (int32_t)((uint32_t)POPCOUNT(planes[p] & (job->masks ? job->masks[word] : UINT32_MAX)) << p);
    }
    job->sums[i] = sum;
  }
}
