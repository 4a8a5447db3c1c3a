/* The threads that execute one graph together.
 *
 * Every thread of a team walks the whole graph (SPMD). The work of an op is cut
 * into tasks that threads claim with go_next() until none is left; go_barrier()
 * ends the op once every claimed task is finished. It does not wait for threads
 * that claimed nothing: one that the operating system has set aside holds nobody
 * up, finds the ops it missed done, and catches up.
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

/* Phases between two joins of the whole team are half as many as this. */
#define GO_PHASES 128

typedef struct {
    _Alignas(64) atomic_uint claimed; /* calls of go_next */
    atomic_uint finished;             /* of them, by threads that reached the barrier */
} go_phase;

typedef struct {
    go_phase phases[GO_PHASES];
    _Alignas(64) atomic_uint arrived;  /* threads waiting in a join */
    _Alignas(64) atomic_uint joins;    /* joins completed */
    _Alignas(64) atomic_uint sleepers; /* threads parked in the kernel */
} go_team_shared;

typedef struct {
    unsigned rank;          /* 0 .. size - 1 */
    unsigned size;          /* threads in the team */
    unsigned phase;         /* barriers this thread has passed since the run began */
    unsigned claims;        /* its calls of go_next in this phase */
    go_team_shared *shared; /* one per team */
} go_team;

/* The next unclaimed task of the current phase; the op is done when it reaches
 * the op's task count. */
#if defined(GO_TRACE) /* see kernels/harness/trace_team.c */
size_t go_next(go_team *team);
void go_trace_step(void);
#else
static inline size_t go_next(go_team *team) {
    team->claims++;
    go_phase *phase = &team->shared->phases[team->phase % GO_PHASES];
    return atomic_fetch_add_explicit(&phase->claimed, 1, memory_order_relaxed);
}
#endif

/* A team of one inside a task of another team, for work that is not to be cut. */
typedef struct {
    go_team_shared shared;
    go_team team;
} go_alone;

static inline go_team *go_open_alone(go_alone *alone) {
    atomic_init(&alone->shared.phases[0].claimed, 0);
    alone->team = (go_team){.size = 1, .shared = &alone->shared};
    return &alone->team;
}

/* Waits until every task claimed in this phase is finished; makes the writes of
 * those tasks visible and restarts the task numbers at 0. */
void go_barrier(go_team *team);

#endif
