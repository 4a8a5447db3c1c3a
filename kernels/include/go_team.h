/* The threads that execute one graph together.
 *
 * Every thread of a team walks the whole graph (SPMD). The work of an op is cut
 * into tasks. Each thread has a share of them, neighbours in memory and the same at
 * every run, so that what it wrote in one op is in its own cache for the next; with
 * go_next() it claims them, and when its share is used up, what is left of the
 * others'. go_barrier() ends the op once every task is finished. It does not wait for
 * threads that claimed nothing: one that the operating system has set aside holds
 * nobody up, finds the ops it missed done, and catches up.
 *
 * From this follow three rules for kernels. All work happens inside claimed
 * tasks. A thread calls go_next() until it gets a number past the last task
 * before it calls go_barrier(). Before its first task of a phase a thread reads
 * its own arguments only. Which thread runs a task never changes what the task
 * computes, so results do not depend on the size of the team.
 */
#ifndef GO_TEAM_H
#define GO_TEAM_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* A thread's share of the tasks: the phase in which one was last claimed in the high
 * half, how many were in the low half. A share of an earlier phase counts as untouched. */
typedef struct {
    _Alignas(64) _Atomic uint64_t claimed;
} go_share;

typedef struct {
    _Alignas(64) atomic_uint finished; /* tasks since the run began */
    atomic_uint sleepers;              /* threads parked in the kernel */
    _Alignas(64) atomic_uint arrived;  /* threads at the end of the run */
    atomic_uint runs;                  /* completed */
    go_share *shares;                  /* one per thread */
} go_team_shared;

typedef struct {
    unsigned rank;          /* 0 .. size - 1 */
    unsigned size;          /* threads in the team */
    unsigned phase;         /* barriers this thread has passed since the run began */
    unsigned due;           /* tasks of those phases */
    unsigned tasks;         /* of this phase; 0 before the first go_next */
    unsigned claims;        /* of them, by this thread */
    unsigned behind;        /* whose share it claims from: so many ranks after its own */
    go_team_shared *shared; /* one per team; none in a team of one */
} go_team;

/* A task of this phase that nobody has claimed, of `tasks` (the same for every thread);
 * `tasks` when there is none left. */
size_t go_next(go_team *team, size_t tasks);

#if defined(GO_TRACE) /* see kernels/harness/trace_team.c */
void go_trace_step(void);
#endif

/* A team of one inside a task of another team, for work that is not to be cut. */
static inline go_team go_alone(void) { return (go_team){.size = 1}; }

/* Waits until every task of this phase is finished; makes the writes of
 * those tasks visible and restarts the task numbers at 0. */
void go_barrier(go_team *team);

#endif
