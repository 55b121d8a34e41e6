#include "engine/cores.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

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
  /* With more CPUs than a cpu_set_t has room for, affinity cannot be asked for this way. */
  bool known = sched_getaffinity(0, sizeof set, &set) == 0;
  int cores = known ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN), granted = quota();
  if (granted > 0 && granted < cores) cores = granted;
  return cores < 1 ? 1 : cores > most ? most : cores;
}
