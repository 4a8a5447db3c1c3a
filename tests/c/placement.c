/* The CPUs of a thread of a pool, whose caller is bound to one.
 *
 *     placement   prints what it saw, a line each; ends with 77 on one CPU
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include "team.h"

static pid_t other;
static int cpu_of_other;

static void note(void *unused, go_team *team) {
    (void)unused;
    if (team->rank != 1) return;
    other = (pid_t)syscall(SYS_gettid);
    cpu_of_other = sched_getcpu();
}

static void bind(pid_t thread, int first, int second) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(first, &set);
    CPU_SET(second, &set);
    if (sched_setaffinity(thread, sizeof set, &set)) abort();
}

static int may_run(pid_t thread, int cpu) {
    cpu_set_t set;
    if (sched_getaffinity(thread, sizeof set, &set)) abort();
    return CPU_ISSET(cpu, &set);
}

static int sleeps(pid_t thread) {
    char path[64], state = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)thread);
    FILE *file = fopen(path, "re");
    if (!file || fscanf(file, "%*d %*s %c", &state) != 1) abort();
    fclose(file);
    return state == 'S';
}

static void run(go_pool *pool) {
    while (other && !sleeps(other)) sched_yield();
    go_pool_run(pool, 2, note, NULL);
}

int main(void) {
    cpu_set_t mine;
    int cpus[2], count = 0;
    if (sched_getaffinity(0, sizeof mine, &mine)) return 1;
    for (int cpu = 0; cpu < CPU_SETSIZE && count < 2; cpu++)
        if (CPU_ISSET(cpu, &mine)) cpus[count++] = cpu;
    if (count < 2) return 77;
    bind(0, cpus[0], cpus[0]);
    go_pool *pool = go_pool_new(2, NULL);
    if (!pool || !go_pool_start(pool)) return 1;
    for (int i = 0; i < 3; i++) run(pool); /* its thread may use that CPU only, too */
    printf("bound alike: %d\n", cpu_of_other == cpus[0] && may_run(other, cpus[0]));
    bind(other, cpus[0], cpus[1]);
    for (int i = 0; i < 6; i++) { /* the caller moves to where its thread was, and back */
        const int own = cpus[i / 2 % 2];
        bind(0, own, own);
        run(pool);
        printf("apart: %d, may run there: %d\n", cpu_of_other != own, may_run(other, own));
    }
    go_pool_free(pool);
    return 0;
}
