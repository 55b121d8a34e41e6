/* How many cores this process may use. */
#ifndef CORES_H
#define CORES_H

/* The CPUs of its affinity mask, or fewer when a container's quota (cgroup v2) grants less; at least 1. */
int cores_available(void);

#endif
