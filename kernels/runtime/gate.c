/* A counting gate: first come, first served, so that no run waits for ever. */
#define _GNU_SOURCE
#include "gate.h"

#include <linux/futex.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "team.h"

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

/* A run that draws its ticket after the look at `next` sees what has changed by then. */
static void announce(go_gate *gate) {
    add(&gate->changes, 1);
    if (get(&gate->next) != get(&gate->serving))
        syscall(SYS_futex, &gate->changes, FUTEX_WAKE_PRIVATE, 1 << 30, NULL, NULL, 0);
}

int go_gate_enter(go_gate *gate, int threads) {
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

void go_gate_leave(go_gate *gate, int threads) {
    add(&gate->running, (uint32_t)-threads);
    announce(gate);
}
