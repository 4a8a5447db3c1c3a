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
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "placement.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { SPINS = 2000, YIELDS = 50 };
enum { SHORT = 50 };        /* spins that outlast the end of a run, on its other threads */
enum { WORK_THREADS = 12 }; /* low bits of a pool's work word */
_Static_assert(GO_MAX_THREADS < 1 << WORK_THREADS, "a work word holds any number of threads");

struct go_pool {
    go_team_shared shared;
    _Alignas(64) atomic_uint work; /* runs started, and in the low bits the threads of the last:
                                    * one word, so that a worker which looks late never takes
                                    * the threads of one run for those of another */
    atomic_uint sleepers;
    atomic_int stop;
    go_pool_function function;
    void *argument;
    const uint32_t *running;
    int size;
    pthread_t *threads;
    go_place *places; /* by rank */
    int started;
    pid_t process; /* whose threads they are */
};

typedef struct {
    go_pool *pool;
    int rank;
    unsigned seen; /* the work word when it was started */
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

/* One step of waiting: spin, then give the core away, then sleep until *word is no
 * longer `value`. */
static void wait_a_little(int step, atomic_uint *word, unsigned value, atomic_uint *sleepers) {
    if (step < SPINS) {
        pause_core();
    } else if (step < SPINS + YIELDS) {
        sched_yield();
    } else {
        atomic_fetch_add(sleepers, 1);
        if (atomic_load(word) == value) futex_wait(word, value);
        atomic_fetch_sub(sleepers, 1);
    }
}

/* Returns when *word is no longer `value`. */
static void wait_for_change(atomic_uint *word, unsigned value, atomic_uint *sleepers) {
    for (int step = 0; atomic_load_explicit(word, memory_order_acquire) == value; step++)
        wait_a_little(step, word, value, sleepers);
}

static void add_and_wake(atomic_uint *word, unsigned count, atomic_uint *sleepers) {
    atomic_fetch_add(word, count);
    if (atomic_load(sleepers)) futex_wake_all(word);
}

/* The number of a task that is claimed from a share of `count`, or `count`. A share whose
 * phase is later than the caller's was used up while the caller was set aside. */
static size_t claim(go_share *share, unsigned phase, size_t count) {
    uint64_t seen = atomic_load_explicit(&share->claimed, memory_order_relaxed), next;
    size_t taken;
    do {
        const unsigned last = (unsigned)(seen >> 32);
        taken = last == phase ? (uint32_t)seen : last < phase ? 0 : count;
        if (taken >= count) return count;
        next = (uint64_t)phase << 32 | (taken + 1);
    } while (!atomic_compare_exchange_weak_explicit(&share->claimed, &seen, next,
                                                    memory_order_relaxed, memory_order_relaxed));
    return taken;
}

size_t go_next(go_team *team, size_t tasks) {
    team->tasks = (unsigned)tasks;
    if (team->size == 1) return team->claims < tasks ? team->claims++ : tasks;
    for (; team->behind < team->size; team->behind++) {
        const size_t owner = (team->rank + team->behind) % team->size;
        const size_t first = tasks * owner / team->size;
        const size_t count = tasks * (owner + 1) / team->size - first;
        const size_t taken = claim(&team->shared->shares[owner], team->phase, count);
        if (taken == count) continue;
        team->claims++;
        return first + taken;
    }
    return tasks;
}

void go_barrier(go_team *team) {
    go_team_shared *shared = team->shared;
    team->due += team->tasks;
    if (team->size > 1) {
        if (team->claims) add_and_wake(&shared->finished, team->claims, &shared->sleepers);
        for (int step = 0;; step++) {
            unsigned finished = atomic_load_explicit(&shared->finished, memory_order_acquire);
            if ((int)(finished - team->due) >= 0) break;
            wait_a_little(step, &shared->finished, finished, &shared->sleepers);
        }
    }
    team->phase++;
    team->tasks = team->claims = team->behind = 0;
}

/* Sets the counters to what they were before a run, when every thread has left it. */
static void begin_anew(go_team_shared *shared, unsigned threads) {
    atomic_store_explicit(&shared->finished, 0, memory_order_relaxed);
    for (unsigned rank = 0; rank < threads; rank++)
        atomic_store_explicit(&shared->shares[rank].claimed, 0, memory_order_relaxed);
}

/* Ends a run: waits for every thread of the team. */
static void finish(const go_team *team) {
    go_team_shared *shared = team->shared;
    unsigned runs = atomic_load_explicit(&shared->runs, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&shared->arrived, 1, memory_order_acq_rel) + 1 == team->size) {
        atomic_store_explicit(&shared->arrived, 0, memory_order_relaxed);
        begin_anew(shared, team->size);
        add_and_wake(&shared->runs, 1, &shared->sleepers);
    } else {
        wait_for_change(&shared->runs, runs, &shared->sleepers);
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

/* The next work word after `seen`. */
static unsigned wait_for_work(go_pool *pool, unsigned seen) {
    for (int step = 0;; step++) {
        unsigned work = atomic_load_explicit(&pool->work, memory_order_acquire);
        if (work != seen) return work;
        int needed = pool->running && __atomic_load_n(pool->running, __ATOMIC_RELAXED);
        if (needed && step >= SHORT && step < SPINS + YIELDS) step = SPINS + YIELDS;
        wait_a_little(step, &pool->work, seen, &pool->sleepers);
    }
}

/* A thread's part in a run. Its team is its own memory: a thread that is late may still look at
 * it when the next run has begun. */
static void take_part(go_pool *pool, unsigned rank, unsigned threads) {
    go_team team = {.rank = rank, .size = threads, .shared = &pool->shared};
    pool->function(pool->argument, &team);
    finish(&team);
}

static void *worker(void *argument) {
    worker_start *start = argument;
    go_pool *pool = start->pool;
    unsigned rank = (unsigned)start->rank, seen = start->seen;
    free(start);
    flush_to_zero();
    go_place *place = &pool->places[rank];
    for (;;) {
        go_place_rest(place);
        seen = wait_for_work(pool, seen);
        if (atomic_load(&pool->stop)) return NULL;
        unsigned threads = seen % (1u << WORK_THREADS);
        if (rank < threads) take_part(pool, rank, threads);
    }
}

go_pool *go_pool_new(int size, const uint32_t *running) {
    go_pool *pool = NULL;
    if (posix_memalign((void **)&pool, 64, sizeof(go_pool))) return NULL;
    *pool = (go_pool){.size = size, .running = running, .process = getpid()};
    pool->threads = calloc((size_t)size, sizeof(pthread_t));
    pool->places = calloc((size_t)size, sizeof(go_place));
    pool->shared.shares = aligned_alloc(64, (size_t)size * sizeof(go_share));
    if (!pool->threads || !pool->places || !pool->shared.shares) {
        go_pool_free(pool);
        return NULL;
    }
    for (int rank = 0; rank < size; rank++) atomic_init(&pool->shared.shares[rank].claimed, 0);
    return pool;
}

/* In a forked child: its parent's threads are not here, and whatever run they were in is none. */
static void forget_parent(go_pool *pool) {
    go_team_shared *shared = &pool->shared;
    atomic_uint *words[] = {&pool->work,       &pool->sleepers,  &shared->finished,
                            &shared->sleepers, &shared->arrived, &shared->runs};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) atomic_store(words[i], 0);
    for (int rank = 0; rank < pool->size; rank++) atomic_store(&shared->shares[rank].claimed, 0);
    memset(pool->places, 0, (size_t)pool->size * sizeof *pool->places);
    pool->started = 0;
    pool->process = getpid();
}

int go_pool_start(go_pool *pool) {
    if (pool->process != getpid()) forget_parent(pool);
    while (pool->started < pool->size - 1) {
        worker_start *start = malloc(sizeof *start);
        if (!start) return 0;
        *start = (worker_start){pool, pool->started + 1, atomic_load(&pool->work)};
        if (pthread_create(&pool->threads[start->rank], NULL, worker, start)) {
            free(start);
            return 0;
        }
        pool->started++;
    }
    return 1;
}

void go_pool_free(go_pool *pool) {
    if (!pool) return;
    if (pool->process == getpid()) {
        atomic_store(&pool->stop, 1);
        add_and_wake(&pool->work, 1u << WORK_THREADS, &pool->sleepers);
        for (int rank = 1; rank <= pool->started; rank++) pthread_join(pool->threads[rank], NULL);
    }
    free(pool->threads);
    free(pool->places);
    free(pool->shared.shares);
    free(pool);
}

int go_pool_size(const go_pool *pool) { return pool->size; }

void go_pool_run(go_pool *pool, int threads, go_pool_function function, void *argument) {
    pool->function = function;
    pool->argument = argument;
    if (threads > 1) {
        unsigned last = atomic_load(&pool->work) % (1u << WORK_THREADS);
        unsigned step = (1u << WORK_THREADS) + (unsigned)threads - last;
        if (atomic_load(&pool->sleepers)) go_places_apart(pool->places + 1, threads - 1);
        add_and_wake(&pool->work, step, &pool->sleepers);
    }
    float_mode mode = flush_to_zero();
    take_part(pool, 0, (unsigned)threads);
    restore(mode);
}

typedef struct {
    go_pool *pool;
    go_pool_function function;
    void *argument;
} hosted_run;

static void hosted_part(void *argument, size_t rank) {
    const hosted_run *run = argument;
    go_team team = {
        .rank = (unsigned)rank,
        .size = (unsigned)run->pool->size,
        .shared = &run->pool->shared,
    };
    float_mode mode = flush_to_zero();
    run->function(run->argument, &team);
    restore(mode);
}

void go_pool_run_hosted(go_pool *pool, const go_host *host, go_pool_function function,
                        void *argument) {
    hosted_run run = {pool, function, argument};
    host->parallel_for(host->pool, hosted_part, (size_t)pool->size, &run);
    begin_anew(&pool->shared, (unsigned)pool->size);
}
