/* The threads that execute one graph together.
 *
 * Every thread of a team walks the whole graph (SPMD). Inside an op the threads
 * share its work by claiming task numbers with go_next(); go_barrier() ends the
 * op. Which thread runs a task never changes what the task computes, so results
 * do not depend on the size of the team.
 */
#ifndef GO_TEAM_H
#define GO_TEAM_H

#include <stdatomic.h>
#include <stddef.h>

typedef struct {
    _Alignas(64) atomic_size_t next_task[2]; /* claimed by phase & 1 */
    _Alignas(64) atomic_uint arrived;        /* threads waiting in the barrier */
    _Alignas(64) atomic_uint generation;     /* barriers completed */
    atomic_uint sleepers;                    /* threads parked in the kernel */
} go_team_shared;

typedef struct {
    unsigned rank;          /* 0 .. size - 1 */
    unsigned size;          /* threads in the team */
    unsigned phase;         /* barriers this thread has passed */
    go_team_shared *shared; /* one per team */
} go_team;

/* The next unclaimed task of the current phase; the op is done when it reaches
 * the op's task count. */
static inline size_t go_next(go_team *team) {
    return atomic_fetch_add_explicit(&team->shared->next_task[team->phase & 1u], 1,
                                     memory_order_relaxed);
}

/* Waits until every thread of the team has arrived; makes their writes visible
 * and restarts the task numbers at 0. */
void go_barrier(go_team *team);

#endif
