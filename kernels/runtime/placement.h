/* Sleeping threads of a pool are not woken on the CPU of the thread that wakes them.
 *
 * Linux likes to wake a thread where its waker runs. A waker that goes on working leaves it to
 * wait there until the load is balanced, milliseconds later: a whole run for one CPU, and from
 * then on every run. So a thread that had its last work on the CPU of its caller is kept from
 * that CPU, until it is found on a caller's again. Without permission (seccomp), or where there
 * are more threads than CPUs, nothing is changed.
 */
#ifndef GO_PLACEMENT_H
#define GO_PLACEMENT_H

#include <sched.h>
#include <stdatomic.h>

/* Where a thread of a pool runs. */
typedef struct {
    atomic_int thread; /* its number in the system; 0 before it ran */
    atomic_int cpu;    /* that it was on when its last work ended */
    cpu_set_t allowed; /* CPUs of its own, if `kept` is not empty */
    cpu_set_t kept;    /* those of them that it was left */
} go_place;

/* By the thread, before it waits for work. */
void go_place_rest(go_place *place);

/* By the thread that is about to wake those of `count` places, and works beside them. */
void go_places_apart(go_place *places, int count);

#endif
