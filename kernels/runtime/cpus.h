/* How many CPUs a process may use. */
#ifndef GO_CPUS_H
#define GO_CPUS_H

/* What the CPU quotas of this process's control groups are worth, rounded up; 0 without one.
 * The files are those below `root`, which is "" but in tests. graphopt/runtime/cpus.py does the
 * same. */
int go_quota_cpus(const char *root);

/* How many threads this process may use: affinity mask and quotas, at least 1. */
int go_default_threads(void);

#endif
