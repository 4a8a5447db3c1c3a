/* Times calls of kernels on a pool of threads. Behind this text comes the table
 * of a level's kernels that graphopt/toolchain/build.py writes. */
#include <string.h>
#include <time.h>

#include "kernels.h"
#include "peak.h"
#include "team.h"
#include "timer.h"

#define GO_EXPORT __attribute__((visibility("default")))

typedef struct {
    const char *name;
    go_kernel_fn *kernel;
} go_named_kernel;

extern const go_named_kernel go_kernels[];

typedef struct {
    const go_call *calls;
    size_t count, repeats;
} go_sequence;

static void run_sequence(void *argument, go_team *team) {
    const go_sequence *s = argument;
    for (size_t r = 0; r < s->repeats; r++)
        for (size_t i = 0; i < s->count; i++) {
            s->calls[i].kernel(team, s->calls[i].args);
            go_barrier(team);
        }
}

GO_EXPORT go_pool *go_timer_pool(int threads);
GO_EXPORT void go_timer_pool_free(go_pool *pool);
GO_EXPORT go_kernel_fn *go_timer_kernel(const char *name);
GO_EXPORT const go_peak_loop *go_timer_peaks(void);
GO_EXPORT go_kernel_fn *go_timer_read(void);
GO_EXPORT go_kernel_fn *go_timer_count(void);
GO_EXPORT double go_timer_run(go_pool *pool, const go_call *calls, size_t count, size_t repeats);

go_pool *go_timer_pool(int threads) {
    go_pool *pool = go_pool_new(threads, NULL);
    if (pool && go_pool_start(pool)) return pool;
    go_pool_free(pool);
    return NULL;
}

void go_timer_pool_free(go_pool *pool) { go_pool_free(pool); }

/* The kernel of a generic name; null if the level has none. */
go_kernel_fn *go_timer_kernel(const char *name) {
    for (const go_named_kernel *k = go_kernels; k->name; k++)
        if (!strcmp(k->name, name)) return k->kernel;
    return NULL;
}

/* The peak loops of the level; each is called like a kernel, on go_peak_args. */
const go_peak_loop *go_timer_peaks(void) { return go_peak_loops; }

/* go_peak_read, on go_read_args. */
go_kernel_fn *go_timer_read(void) { return (go_kernel_fn *)go_peak_read; }

/* go_peak_count, on go_count_args. */
go_kernel_fn *go_timer_count(void) { return (go_kernel_fn *)go_peak_count; }

/* Seconds that the calls take, one after the other, `repeats` times over. */
double go_timer_run(go_pool *pool, const go_call *calls, size_t count, size_t repeats) {
    go_sequence sequence = {calls, count, repeats};
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    go_pool_run(pool, go_pool_size(pool), run_sequence, &sequence);
    clock_gettime(CLOCK_MONOTONIC, &end);
    return (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
}
