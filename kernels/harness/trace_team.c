/* A team of any size whose work one thread does: in place of runtime/team.c, with
 * -DGO_TRACE. Kernels see the size and cut their work as they would for that many cores;
 * thread 0 claims every task, and the time between two claims is what the task costs.
 * graphopt/schedule.py deals the tasks out to cores again. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <time.h>

#include "team.h"

#define GO_EXPORT __attribute__((visibility("default")))

enum { PHASE_END = -1, STEP_END = -2 };

struct go_pool {
    go_team team;
};

/* Nanoseconds of one task after the other, with marks between them. */
static struct {
    double *values;
    size_t count, room;
    double claimed_at;
} trace;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

static void append(double value) {
    if (trace.count == trace.room) {
        trace.room = trace.room ? 2 * trace.room : 1 << 16;
        trace.values = realloc(trace.values, trace.room * sizeof *trace.values);
        if (!trace.values) abort();
    }
    trace.values[trace.count++] = value;
}

size_t go_next(go_team *team, size_t tasks) {
    double time = now();
    if (team->claims) append(time - trace.claimed_at);
    if (team->claims == tasks) return tasks;
    trace.claimed_at = now();
    return team->claims++;
}

void go_barrier(go_team *team) {
    append(PHASE_END);
    team->claims = 0;
}

void go_trace_step(void) { append(STEP_END); }

GO_EXPORT size_t go_trace_take(const double **values);

/* What was recorded since the last call; valid until the next run. */
size_t go_trace_take(const double **values) {
    size_t count = trace.count;
    *values = trace.values;
    trace.count = 0;
    return count;
}

int go_default_threads(void) { return 1; }

go_pool *go_pool_new(int size, const uint32_t *running) {
    (void)running;
    go_pool *pool = malloc(sizeof *pool);
    if (pool) *pool = (go_pool){.team = {.size = (unsigned)size}};
    return pool;
}

void go_pool_free(go_pool *pool) { free(pool); }

int go_pool_size(const go_pool *pool) { return (int)pool->team.size; }

void go_pool_run(go_pool *pool, int threads, go_pool_function function, void *argument) {
    (void)threads;
    function(argument, &pool->team);
}
