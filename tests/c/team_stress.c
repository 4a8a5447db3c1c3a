/* Barriers, tasks and the float mode of pools of 1 to 8 threads.
 *
 *     team_stress default     prints go_default_threads()
 *     team_stress quota ROOT  prints go_quota_cpus(ROOT)
 *     team_stress             prints a line per failure, then "done"
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpus.h"
#include "team.h"

enum { STEPS = 400, MAX_TASKS = 13 };

typedef struct {
    unsigned char done[STEPS][MAX_TASKS]; /* plain memory: only the barrier orders its accesses */
    atomic_int failures;
} work;

static volatile float tiny = 1e-40f;

static int flushes(void) { return tiny * 0.5f == 0.0f; }

static size_t task_count(int step) { return (size_t)(step % (MAX_TASKS + 1)); }

static void walk(void *argument, go_team *team) {
    work *shared = argument;
    if (!flushes()) atomic_fetch_add(&shared->failures, 1);
    for (int step = 0; step < STEPS; step++) {
        for (size_t t; (t = go_next(team, task_count(step))) < task_count(step);) {
            if ((t + (size_t)step) % 3 == 0) sched_yield(); /* others look while it is open */
            shared->done[step][t]++;
        }
        go_barrier(team);
        /* Everything of this step is visible to every thread, once. */
        for (size_t t = 0; t < MAX_TASKS; t++)
            if (shared->done[step][t] != (t < task_count(step)))
                atomic_fetch_add(&shared->failures, 1);
    }
}

typedef void task(void *argument, size_t index);

/* Hosts whose threads begin when others have ended. */
static void in_order(void *pool, task *call, size_t count, void *argument) {
    (void)pool;
    for (size_t i = 0; i < count; i++) call(argument, i);
}
static void from_the_end(void *pool, task *call, size_t count, void *argument) {
    (void)pool;
    while (count--) call(argument, count);
}

typedef struct {
    task *call;
    void *argument;
    size_t index;
} call_of;

static void *call_one(void *argument) {
    const call_of *one = argument;
    one->call(one->argument, one->index);
    return NULL;
}

static void at_once(void *pool, task *call, size_t count, void *argument) {
    (void)pool;
    pthread_t threads[3];
    call_of calls[3];
    for (size_t i = 0; i < count; i++) {
        calls[i] = (call_of){call, argument, i};
        if (pthread_create(&threads[i], NULL, call_one, &calls[i])) abort();
    }
    for (size_t i = 0; i < count; i++) pthread_join(threads[i], NULL);
}

static void (*const hosts[])(void *, task *, size_t, void *) = {in_order, from_the_end, at_once};

int main(int argc, char **argv) {
    if (argc == 3) return printf("%d\n", go_quota_cpus(argv[2])) < 0;
    if (argc > 1) return printf("%d\n", go_default_threads()) < 0;
    static work shared;
    for (int size = 1; size <= 8; size++) {
        go_pool *pool = go_pool_new(size, NULL);
        if (!pool || !go_pool_start(pool) || go_pool_size(pool) != size) return 1;
        for (int run = 0; run < 5; run++) {
            memset(shared.done, 0, sizeof shared.done);
            go_pool_run(pool, 1 + (size + run) % size, walk, &shared);
            if (flushes()) printf("the caller's float mode is lost\n");
        }
        for (int run = 0; run < 3; run++) {
            memset(shared.done, 0, sizeof shared.done);
            go_pool_run_hosted(pool, &(go_host){hosts[run % (size > 3 ? 2 : 3)], NULL}, walk,
                               &shared);
            if (flushes()) printf("a host's float mode is lost\n");
        }
        go_pool_free(pool);
        int failures = atomic_exchange(&shared.failures, 0);
        if (failures) printf("%d threads: %d failures\n", size, failures);
    }
    for (int i = 0; i < 100; i++) { /* freed before any run */
        go_pool *pool = go_pool_new(1 + i % 8, NULL);
        if (i % 2 && !go_pool_start(pool)) return 1;
        go_pool_free(pool);
    }
    go_pool_free(NULL);
    printf("done\n");
    return 0;
}
