/* How many cores this process may use. */
#ifndef HWGQ_CORES_H
#define HWGQ_CORES_H

/* The CPUs of its affinity mask, or fewer when a container's quota (cgroup v2) grants less; at least 1 and no more than `most`.
 */
int hwgq_cores_available(int most);

#endif
