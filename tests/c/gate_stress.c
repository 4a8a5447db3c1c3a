/* Pools of 1 to 4 threads that share a gate of 3: prints the most threads that ran at once, the
 * runs, and the gate when all is done. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>

#include "gate.h"
#include "team.h"

enum { CALLERS = 6, RUNS = 200, LIMIT = 3 };

static go_gate gate = {.limit = LIMIT};
static atomic_int running, most, runs;

static void count(void *argument, go_team *team) {
    (void)argument;
    int now = atomic_fetch_add(&running, 1) + 1, seen = atomic_load(&most);
    while (now > seen && !atomic_compare_exchange_weak(&most, &seen, now)) continue;
    if (go_next(team, 1) == 0) atomic_fetch_add(&runs, 1);
    sched_yield();
    atomic_fetch_sub(&running, 1);
    go_barrier(team);
}

static void *call(void *number) {
    go_pool *pool = go_pool_new(1 + (int)(size_t)number % 4, &gate.running);
    for (int i = 0; pool && go_pool_start(pool) && i < RUNS; i++) {
        int threads = go_gate_enter(&gate, go_pool_size(pool));
        go_pool_run(pool, threads, count, NULL);
        go_gate_leave(&gate, threads);
    }
    go_pool_free(pool);
    return NULL;
}

int main(void) {
    pthread_t callers[CALLERS];
    go_gate_open(&gate);
    for (size_t i = 0; i < CALLERS; i++) pthread_create(&callers[i], NULL, call, (void *)i);
    for (int i = 0; i < CALLERS; i++) pthread_join(callers[i], NULL);
    printf("at most %d, %d runs, %u running, %d waiting\n", atomic_load(&most), atomic_load(&runs),
           gate.running, gate.next != gate.serving);
    return 0;
}
