#define _GNU_SOURCE
#include "package.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu_features.h"

enum { PATH_BYTES = 4096 };

static int fail(const char *what, const char *which) {
    fprintf(stderr, "%s: %s\n", what, which);
    return 1;
}

static int has_feature(const char *features, const char *name) {
    char word[64];
    return snprintf(word, sizeof word, " %s ", name) < (int)sizeof word && strstr(features, word);
}

/* lib/levels has a line for each library, the most capable last: its level, then the features
 * that it needs, by the names of /proc/cpuinfo. */
static int choose_level(const char *folder, char *level, size_t bytes) {
    char path[PATH_BYTES], line[1024], *features = go_cpu_features(), *rest;
    snprintf(path, sizeof path, "%s/lib/levels", folder);
    FILE *file = fopen(path, "r");
    *level = 0;
    while (file && features && fgets(line, sizeof line, file)) {
        char *name = strtok_r(line, " \n", &rest), *need;
        if (!name) continue;
        while ((need = strtok_r(NULL, " \n", &rest)) && has_feature(features, need)) continue;
        if (!need) snprintf(level, bytes, "%s", name);
    }
    free(features);
    if (!file) return fail("no package", folder);
    fclose(file);
    return *level ? 0 : fail("this CPU has none of the levels in", path);
}

static int bind(void *library, package_functions *call) {
    const struct {
        const char *name;
        void **function;
    } wanted[] = {
        {"go_abi_version", (void **)&call->abi_version},
        {"go_level_refusal", (void **)&call->level_refusal},
        {"go_open", (void **)&call->open},
        {"go_close", (void **)&call->close},
        {"go_input_count", (void **)&call->input_count},
        {"go_output_count", (void **)&call->output_count},
        {"go_context_new", (void **)&call->context_new},
        {"go_context_free", (void **)&call->context_free},
        {"go_output_shapes", (void **)&call->output_shapes},
        {"go_run", (void **)&call->run},
        {"go_last_error", (void **)&call->last_error},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (!(*wanted[i].function = dlsym(library, wanted[i].name)))
            return fail("the library lacks", wanted[i].name);
    return 0;
}

int package_open(const char *folder, package *opened) {
    char path[PATH_BYTES];
    if (choose_level(folder, opened->level, sizeof opened->level)) return 1;
    snprintf(path, sizeof path, "%s/lib/%s.so", folder, opened->level);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) return fail("cannot load", dlerror());
    if (bind(library, &opened->call)) return 1;
    if (opened->call.abi_version() < GO_ABI_VERSION) return fail("of an older graphopt", path);
    const char *refusal = opened->call.level_refusal();
    if (refusal) return fail(opened->level, refusal);
    snprintf(path, sizeof path, "%s/weights.bin", folder);
    return opened->call.open(path, &opened->module) ? fail("cannot map", path) : 0;
}
