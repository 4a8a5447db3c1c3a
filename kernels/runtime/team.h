/* A pool of threads that runs one function at a time on all of them. */
#ifndef GO_POOL_H
#define GO_POOL_H

#include "go_team.h"

typedef struct go_pool go_pool;
typedef void (*go_pool_function)(void *argument, go_team *team);

/* How many threads this process may use: affinity mask and cgroup quota. */
int go_default_threads(void);

/* Starts size - 1 threads; null if that fails. The caller is the first thread. */
go_pool *go_pool_new(int size);
void go_pool_free(go_pool *pool);
int go_pool_size(const go_pool *pool);

/* Runs the function on every thread and returns when all are done. Floats that
 * are too small for a normal number count as zero in it, on every thread. */
void go_pool_run(go_pool *pool, go_pool_function function, void *argument);

#endif
