#define _GNU_SOURCE
#include "cpu_features.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>

/* From the auxiliary vector: emulators show their host's /proc/cpuinfo. */
char *go_cpu_features(void) {
    static const struct {
        const char *name;
        unsigned long type, bit;
    } known[] = {
        {"asimd", AT_HWCAP, HWCAP_ASIMD},
        {"asimddp", AT_HWCAP, HWCAP_ASIMDDP},
        {"atomics", AT_HWCAP, HWCAP_ATOMICS},
        {"lrcpc", AT_HWCAP, HWCAP_LRCPC},
        {"ilrcpc", AT_HWCAP, HWCAP_ILRCPC},
        {"i8mm", AT_HWCAP2, HWCAP2_I8MM},
        {"bf16", AT_HWCAP2, HWCAP2_BF16},
        {"sve", AT_HWCAP, HWCAP_SVE},
        {"sve2", AT_HWCAP2, HWCAP2_SVE2},
        {"svei8mm", AT_HWCAP2, HWCAP2_SVEI8MM},
        {"svebf16", AT_HWCAP2, HWCAP2_SVEBF16},
        {"svef32mm", AT_HWCAP2, HWCAP2_SVEF32MM},
        {"sme", AT_HWCAP2, HWCAP2_SME},
        {"smei8i32", AT_HWCAP2, HWCAP2_SME_I8I32},
        {"smef32f32", AT_HWCAP2, HWCAP2_SME_F32F32},
    };
    char *features = calloc(1, 512);
    if (features) strcat(features, " ");
    for (size_t i = 0; features && i < sizeof known / sizeof *known; i++)
        if (getauxval(known[i].type) & known[i].bit) strcat(strcat(features, known[i].name), " ");
    return features;
}

#else

char *go_cpu_features(void) {
    char *line = NULL, *found = NULL;
    size_t bytes = 0;
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file && !found && getline(&line, &bytes, file) > 0) {
        char *list = strchr(line, ':');
        if (!list || strncmp(line, "flags", 5)) continue;
        list[strcspn(list, "\n")] = ' ';
        found = strdup(list + 1);
    }
    if (file) fclose(file);
    free(line);
    return found ? found : strdup(" ");
}

#endif
