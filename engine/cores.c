#include "engine/cores.h"

#include <sched.h>
#include <stdio.h>

/* Whole cores that the quota grants, rounded up; 0 when there is none. */
static int quota(void) {
  FILE *stream = fopen("/sys/fs/cgroup/cpu.max", "r");
  long long allowed = 0, period = 0;
  if (!stream) return 0;
  if (fscanf(stream, "%lld %lld", &allowed, &period) != 2 || allowed <= 0 || period <= 0) allowed = period = 0;
  fclose(stream);
  return period ? (int)((allowed + period - 1) / period) : 0;
}

int hwgq_cores_available(int most) {
  cpu_set_t set;
  int cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1, granted = quota();
  if (granted > 0 && granted < cores) cores = granted;
  return cores < 1 ? 1 : cores > most ? most : cores;
}
