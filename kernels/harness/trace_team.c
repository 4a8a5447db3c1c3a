/* A team of any size whose work one thread does: in place of runtime/team.c, with
 * -DGO_TRACE. Kernels see the size and cut their work as they would for that many cores;
 * thread 0 claims every task, and the time between two claims is what the task costs. Each
 * run begins its phases with another task, because the first one pays for a cold start.
 * graphopt/compiler/schedule.py deals the tasks out to cores again. */
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
    size_t run, phase, task; /* which run; the first value of its phase; the claimed task */
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
    const double time = now();
    if (team->claims) {
        trace.values[trace.phase + trace.task] = time - trace.claimed_at;
    } else {
        trace.phase = trace.count;
        for (size_t task = 0; task < tasks; task++) append(0);
    }
    if (team->claims == tasks) return tasks;
    trace.task = (trace.run + team->claims++) % tasks;
    trace.claimed_at = now();
    return trace.task;
}

void go_barrier(go_team *team) {
    append(PHASE_END);
    team->claims = 0;
}

void go_trace_step(void) { append(STEP_END); }

GO_EXPORT void go_trace_begin(size_t run);
GO_EXPORT size_t go_trace_take(const double **values);

/* Forgets what was recorded; phases of the next run begin with task `run` modulo their tasks. */
void go_trace_begin(size_t run) { trace.run = run, trace.count = 0; }

/* What was recorded; valid until the next run. */
size_t go_trace_take(const double **values) {
    *values = trace.values;
    return trace.count;
}

go_pool *go_pool_new(int size, const uint32_t *running) {
    (void)running;
    go_pool *pool = malloc(sizeof *pool);
    if (pool) *pool = (go_pool){.team = {.size = (unsigned)size}};
    return pool;
}

int go_pool_start(go_pool *pool) { return pool != NULL; }

void go_pool_free(go_pool *pool) { free(pool); }

int go_pool_size(const go_pool *pool) { return (int)pool->team.size; }

void go_pool_run(go_pool *pool, int threads, go_pool_function function, void *argument) {
    (void)threads;
    function(argument, &pool->team);
}

void go_pool_run_hosted(go_pool *pool, const go_host *host, go_pool_function function,
                        void *argument) {
    (void)host;
    function(argument, &pool->team);
}
