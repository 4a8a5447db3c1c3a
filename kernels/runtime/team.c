/* Threads, barriers and the flush-to-zero mode.
 *
 * Waiting threads spin for a few microseconds, because the next step is almost
 * always that near, and then sleep in the kernel (futex), because a server has
 * other work for the core.
 */
#define _GNU_SOURCE
#include "team.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { SPINS = 4000 };

struct go_pool {
    go_team_shared shared;
    _Alignas(64) atomic_uint work; /* runs started; its change wakes the workers */
    atomic_uint sleepers;
    atomic_int stop;
    go_pool_function function;
    void *argument;
    int size;
    go_team *teams;
    pthread_t *threads;
    int started;
};

typedef struct {
    go_pool *pool;
    int rank;
} worker_start;

static void pause_core(void) {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

static void futex_wait(atomic_uint *word, unsigned value) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake_all(atomic_uint *word) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1 << 30, NULL, NULL, 0);
}

/* Returns when *word is no longer `value`. */
static void wait_for_change(atomic_uint *word, unsigned value, atomic_uint *sleepers) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(word, memory_order_acquire) != value) return;
        pause_core();
    }
    atomic_fetch_add(sleepers, 1);
    while (atomic_load(word) == value) futex_wait(word, value);
    atomic_fetch_sub(sleepers, 1);
}

static void announce_change(atomic_uint *word, atomic_uint *sleepers) {
    atomic_fetch_add(word, 1);
    if (atomic_load(sleepers)) futex_wake_all(word);
}

void go_barrier(go_team *team) {
    go_team_shared *shared = team->shared;
    team->phase++;
    if (team->size == 1) {
        atomic_store_explicit(&shared->next_task[team->phase & 1u], 0, memory_order_relaxed);
        return;
    }
    unsigned generation = atomic_load_explicit(&shared->generation, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&shared->arrived, 1, memory_order_acq_rel) + 1 == team->size) {
        atomic_store_explicit(&shared->arrived, 0, memory_order_relaxed);
        /* The counter of the phase that begins; the other one is still being read. */
        atomic_store_explicit(&shared->next_task[team->phase & 1u], 0, memory_order_relaxed);
        announce_change(&shared->generation, &shared->sleepers);
    } else {
        wait_for_change(&shared->generation, generation, &shared->sleepers);
    }
}

#if defined(__x86_64__)
typedef unsigned float_mode;
static float_mode flush_to_zero(void) {
    float_mode old = _mm_getcsr();
    _mm_setcsr(old | 0x8040); /* FTZ and DAZ */
    return old;
}
static void restore(float_mode mode) { _mm_setcsr(mode); }
#elif defined(__aarch64__)
typedef uint64_t float_mode;
static float_mode flush_to_zero(void) {
    float_mode old;
    __asm__ volatile("mrs %0, fpcr" : "=r"(old));
    __asm__ volatile("msr fpcr, %0" ::"r"(old | (1u << 24))); /* FZ */
    return old;
}
static void restore(float_mode mode) { __asm__ volatile("msr fpcr, %0" ::"r"(mode)); }
#endif

static void *worker(void *start) {
    go_pool *pool = ((worker_start *)start)->pool;
    int rank = ((worker_start *)start)->rank;
    free(start);
    flush_to_zero();
    unsigned seen = 0;
    for (;;) {
        wait_for_change(&pool->work, seen, &pool->sleepers);
        seen++;
        if (atomic_load(&pool->stop)) return NULL;
        pool->function(pool->argument, &pool->teams[rank]);
        go_barrier(&pool->teams[rank]);
    }
}

go_pool *go_pool_new(int size) {
    go_pool *pool = NULL;
    if (posix_memalign((void **)&pool, 64, sizeof(go_pool))) return NULL;
    *pool = (go_pool){.size = size};
    pool->teams = calloc((size_t)size, sizeof(go_team));
    pool->threads = calloc((size_t)size, sizeof(pthread_t));
    if (!pool->teams || !pool->threads) {
        go_pool_free(pool);
        return NULL;
    }
    for (int rank = 0; rank < size; rank++)
        pool->teams[rank] = (go_team){(unsigned)rank, (unsigned)size, 0, &pool->shared};
    for (int rank = 1; rank < size; rank++) {
        worker_start *start = malloc(sizeof *start);
        if (!start) break;
        *start = (worker_start){pool, rank};
        if (pthread_create(&pool->threads[rank], NULL, worker, start)) {
            free(start);
            break;
        }
        pool->started = rank;
    }
    if (pool->started == size - 1) return pool;
    go_pool_free(pool);
    return NULL;
}

void go_pool_free(go_pool *pool) {
    if (!pool) return;
    atomic_store(&pool->stop, 1);
    announce_change(&pool->work, &pool->sleepers);
    for (int rank = 1; rank <= pool->started; rank++) pthread_join(pool->threads[rank], NULL);
    free(pool->threads);
    free(pool->teams);
    free(pool);
}

int go_pool_size(const go_pool *pool) { return pool->size; }

void go_pool_run(go_pool *pool, go_pool_function function, void *argument) {
    pool->function = function;
    pool->argument = argument;
    if (pool->size > 1) announce_change(&pool->work, &pool->sleepers);
    float_mode mode = flush_to_zero();
    function(argument, &pool->teams[0]);
    go_barrier(&pool->teams[0]);
    restore(mode);
}

/* CPUs that the cgroup's quota is worth, rounded up; 0 without a quota. */
static int cgroup_threads(void) {
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (!file) return 0;
    long quota = 0, period = 0;
    int fields = fscanf(file, "%ld %ld", &quota, &period);
    fclose(file);
    return fields == 2 && quota > 0 && period > 0 ? (int)((quota + period - 1) / period) : 0;
}

int go_default_threads(void) {
    cpu_set_t set;
    int count = sched_getaffinity(0, sizeof set, &set) ? (int)sysconf(_SC_NPROCESSORS_ONLN)
                                                       : CPU_COUNT(&set);
    int quota = cgroup_threads();
    if (quota && quota < count) count = quota;
    return count > 0 ? count : 1;
}
