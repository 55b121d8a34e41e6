/* Body of hwgq_pool_*: included twice by one file per instruction set, which defines POOL_NAME and POOL_TYPE. The loops over
 * lanes have a constant length and vectorize. */
void POOL_NAME(const struct hwgq_pool_job *job) {
  POOL_TYPE *output = job->output;
  for (int column = 0; column < job->output_columns; column++, output += HWGQ_LANES) {
    const int start = column * job->stride - job->pad;
    const int first = start < 0 ? 0 : start;
    const int last = start + job->kernel < job->columns ? start + job->kernel : job->columns;
    const POOL_TYPE *line = (const POOL_TYPE *)job->accumulators + (size_t)first * HWGQ_LANES;
    POOL_TYPE best[HWGQ_LANES];
    for (int i = 0; i < HWGQ_LANES; i++) best[i] = line[i];
    for (int y = 0; y < job->lines; y++, line += job->line_step) {
      const POOL_TYPE *pixel = line;
      for (int x = first; x < last; x++, pixel += HWGQ_LANES) {
        for (int i = 0; i < HWGQ_LANES; i++) best[i] = pixel[i] > best[i] ? pixel[i] : best[i];
      }
    }
    for (int i = 0; i < HWGQ_LANES; i++) output[i] = best[i];
  }
}
