/* A pool of threads that runs one function at a time on all of them. */
#ifndef GO_POOL_H
#define GO_POOL_H

#include <stdint.h>

#include "go_team.h"
#include "graphopt.h"

typedef struct go_pool go_pool;
typedef void (*go_pool_function)(void *argument, go_team *team);

enum { GO_MAX_THREADS = 4095 };

/* A pool of 1 to GO_MAX_THREADS threads, of which the caller is the first; null without
 * memory. Threads without work leave the core at once, without spinning, while *running
 * (threads in runs of whichever pools share it; null for none) is not 0. */
go_pool *go_pool_new(int size, const uint32_t *running);
void go_pool_free(go_pool *pool);

/* Starts the threads that are missing: all of a new pool, and those that stayed in the
 * parent when the process was forked. Returns whether all are there; only then may the
 * pool run, in this process. */
int go_pool_start(go_pool *pool);
int go_pool_size(const go_pool *pool);

/* Runs the function on the first `threads` threads, at least 1 and at most the
 * size, and returns when all are done. Floats that are too small for a normal
 * number count as zero in it, on every thread. */
void go_pool_run(go_pool *pool, int threads, go_pool_function function, void *argument);

/* The same for a team of the pool's size on the threads of a host. A host may let a thread begin
 * when others have ended, so none waits for another but at barriers. The pool's own threads
 * need not be there. */
void go_pool_run_hosted(go_pool *pool, const go_host *host, go_pool_function function,
                        void *argument);

#endif
