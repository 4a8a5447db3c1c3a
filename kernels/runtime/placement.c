#define _GNU_SOURCE
#include "placement.h"

#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

void go_place_rest(go_place *place) {
    atomic_store(&place->cpu, sched_getcpu());
    if (!atomic_load(&place->thread)) atomic_store(&place->thread, (int)syscall(SYS_gettid));
}

/* Threads that are more than their CPUs share them as the system sees fit. */
static void keep_from(go_place *place, int cpu, int threads) {
    const pid_t thread = atomic_load(&place->thread);
    cpu_set_t now;
    if (sched_getaffinity(thread, sizeof now, &now)) return;
    if (!CPU_EQUAL(&now, &place->kept)) place->allowed = now; /* somebody else's wish */
    place->kept = place->allowed;
    if (threads <= CPU_COUNT(&place->allowed)) CPU_CLR(cpu, &place->kept);
    if (!CPU_EQUAL(&now, &place->kept)) sched_setaffinity(thread, sizeof now, &place->kept);
}

void go_places_apart(go_place *places, int count) {
    const int own = sched_getcpu();
    if (own < 0 || own >= CPU_SETSIZE) return;
    for (int i = 0; i < count; i++)
        if (atomic_load(&places[i].thread) && atomic_load(&places[i].cpu) == own)
            keep_from(&places[i], own, count + 1);
}
