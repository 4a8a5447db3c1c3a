/* go_barrier() for the test host: spin, and give the core away while waiting. */
#include <sched.h>

#include "go_team.h"

void go_barrier(go_team *team) {
    go_team_shared *shared = team->shared;
    unsigned generation = atomic_load_explicit(&shared->generation, memory_order_acquire);
    if (atomic_fetch_add_explicit(&shared->arrived, 1, memory_order_acq_rel) + 1 == team->size) {
        atomic_store_explicit(&shared->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&shared->next_task[team->phase & 1u], 0, memory_order_relaxed);
        atomic_fetch_add_explicit(&shared->generation, 1, memory_order_release);
    } else {
        while (atomic_load_explicit(&shared->generation, memory_order_acquire) == generation)
            sched_yield();
    }
    team->phase++;
}
