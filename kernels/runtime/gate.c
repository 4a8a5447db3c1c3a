/* A counting gate: first come, first served, so that no run waits for ever. */
#define _GNU_SOURCE
#include "gate.h"

#include <linux/futex.h>
#include <sched.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpus.h"

/* The gate is memory of a caller who may write C++ or Python: no _Atomic in it. All
 * accesses are sequentially consistent. */
static uint32_t get(const uint32_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }
static uint32_t add(uint32_t *word, uint32_t count) {
    return __atomic_fetch_add(word, count, __ATOMIC_SEQ_CST);
}

void go_gate_open(go_gate *gate) {
    uint32_t none = 0;
    __atomic_compare_exchange_n(&gate->limit, &none, (uint32_t)go_default_threads(), 0,
                                __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* In a forked child: the runs that its parent had under way are not in it. The word
 * `process` is twice the number of the process whose runs are counted, and odd while one
 * of its threads begins the count anew. */
static void renew_in_child(go_gate *gate) {
    const uint32_t mine = 2 * (uint32_t)getpid();
    for (uint32_t seen; (seen = get(&gate->process)) != mine;) {
        if (seen == mine + 1) {
            sched_yield();
        } else if (__atomic_compare_exchange_n(&gate->process, &seen, mine + 1, 0, __ATOMIC_SEQ_CST,
                                               __ATOMIC_SEQ_CST)) {
            __atomic_store_n(&gate->running, 0, __ATOMIC_SEQ_CST);
            __atomic_store_n(&gate->serving, get(&gate->next), __ATOMIC_SEQ_CST);
            __atomic_store_n(&gate->process, mine, __ATOMIC_SEQ_CST);
        }
    }
}

/* A run that draws its ticket after the look at `next` sees what has changed by then. */
static void announce(go_gate *gate) {
    add(&gate->changes, 1);
    if (get(&gate->next) != get(&gate->serving))
        syscall(SYS_futex, &gate->changes, FUTEX_WAKE_PRIVATE, 1 << 30, NULL, NULL, 0);
}

int go_gate_enter(go_gate *gate, int threads) {
    renew_in_child(gate);
    uint32_t ticket = add(&gate->next, 1), take;
    for (;;) {
        uint32_t changes = get(&gate->changes), limit = get(&gate->limit);
        take = (uint32_t)threads < limit ? (uint32_t)threads : limit;
        if (get(&gate->serving) == ticket && get(&gate->running) + take <= limit) break;
        syscall(SYS_futex, &gate->changes, FUTEX_WAIT_PRIVATE, changes, NULL, NULL, 0);
    }
    add(&gate->running, take);
    add(&gate->serving, 1);
    announce(gate);
    return (int)take;
}

/* What was taken before a fork is given back in the parent; in the child it counts no more. */
void go_gate_leave(go_gate *gate, int threads) {
    renew_in_child(gate);
    uint32_t running = get(&gate->running), left;
    do {
        left = running > (uint32_t)threads ? running - (uint32_t)threads : 0;
    } while (!__atomic_compare_exchange_n(&gate->running, &running, left, 0, __ATOMIC_SEQ_CST,
                                          __ATOMIC_SEQ_CST));
    announce(gate);
}
