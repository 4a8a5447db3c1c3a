/* CPUs by affinity and by the quotas of control groups of both versions. A group's quota binds
 * the groups in it, so all from this process's own up to the mount count. */
#define _GNU_SOURCE
#include "cpus.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "team.h"

enum { PATH = 4096, LINE = 2 * PATH };

/* The numbers that a file begins with: how many of up to two, "max" being none. */
static int read_numbers(const char *folder, const char *name, long long numbers[2]) {
    char path[LINE + PATH + 32];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "re");
    if (!file) return 0;
    int count = fscanf(file, "%lld %lld", &numbers[0], &numbers[1]);
    fclose(file);
    return count;
}

static int group_cpus(const char *folder) {
    long long v2[2], quota[2], period[2];
    if (read_numbers(folder, "cpu.max", v2) != 2) {
        if (read_numbers(folder, "cpu.cfs_quota_us", quota) < 1) return 0;
        if (read_numbers(folder, "cpu.cfs_period_us", period) < 1) return 0;
        v2[0] = quota[0], v2[1] = period[0];
    }
    if (v2[0] <= 0 || v2[1] <= 0) return 0;
    const long long cpus = (v2[0] - 1) / v2[1] + 1;
    return cpus < GO_MAX_THREADS ? (int)cpus : GO_MAX_THREADS;
}

/* Whether a word is in a list with commas. */
static int lists(const char *list, const char *word) {
    const size_t length = strlen(word);
    for (const char *at = list; at; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
        if (!strncmp(at, word, length) && strchr(",\n", at[length])) return 1;
    return 0;
}

/* This process's group in the hierarchy of version 2, or in that of version 1 for cpu. */
static int own_group(const char *root, int version, char group[PATH]) {
    char line[LINE], path[PATH + 32];
    int found = 0;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    while (file && !found && fgets(line, sizeof line, file)) {
        char *controllers = strchr(line, ':'), *name;
        if (!controllers || !(name = strchr(++controllers, ':'))) continue;
        *name++ = 0;
        found = version == 2 ? !strncmp(line, "0:", 2) && !*controllers : lists(controllers, "cpu");
        snprintf(group, PATH, "%.*s", (int)strcspn(name, "\n"), name);
    }
    if (file) fclose(file);
    return found;
}

/* The smallest quota of a group that is mounted at `point` and of those around it. What is
 * mounted is the hierarchy from `top` on; a group outside of it is seen as the mount itself. */
static int mounted_cpus(const char *root, const char *top, const char *point, const char *group) {
    char folder[LINE + PATH];
    const size_t outer = strcmp(top, "/") ? strlen(top) : 0;
    const int inside = !strncmp(group, top, outer) && strchr("/", group[outer]);
    const int base = snprintf(folder, sizeof folder, "%s%s", root, point);
    snprintf(folder + base, sizeof folder - (size_t)base, "%s", inside ? group + outer : "");
    int least = 0;
    for (;;) {
        const int cpus = group_cpus(folder);
        if (cpus && (!least || cpus < least)) least = cpus;
        char *last = strrchr(folder + base, '/');
        if (!last) return least;
        *last = 0;
    }
}

int go_quota_cpus(const char *root) {
    char line[LINE], path[PATH + 32], group[PATH];
    int least = 0;
    snprintf(path, sizeof path, "%s/proc/self/mountinfo", root);
    FILE *file = fopen(path, "re");
    while (file && fgets(line, sizeof line, file)) {
        char top[PATH], point[PATH], kind[32], options[PATH];
        const char *after = strstr(line, " - ");
        if (!after || sscanf(line, "%*s %*s %*s %4095s %4095s", top, point) != 2) continue;
        if (sscanf(after, " - %31s %*s %4095s", kind, options) != 2) continue;
        const int version = !strcmp(kind, "cgroup2") ? 2 : !strcmp(kind, "cgroup") ? 1 : 0;
        if (!version || (version == 1 && !lists(options, "cpu"))) continue;
        if (!own_group(root, version, group)) continue;
        const int cpus = mounted_cpus(root, top, point, group);
        if (cpus && (!least || cpus < least)) least = cpus;
    }
    if (file) fclose(file);
    return least;
}

int go_default_threads(void) {
    cpu_set_t set;
    const int allowed = !sched_getaffinity(0, sizeof set, &set);
    long count = allowed ? CPU_COUNT(&set) : sysconf(_SC_NPROCESSORS_ONLN);
    const int quota = go_quota_cpus("");
    if (quota && quota < count) count = quota;
    if (count > GO_MAX_THREADS) count = GO_MAX_THREADS;
    return count > 0 ? (int)count : 1;
}
