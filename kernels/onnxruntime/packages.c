#define _GNU_SOURCE
#include "packages.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu_features.h"
#include "sha256.h"

#if defined(__x86_64__)
#define ARCH "x86_64"
#else
#define ARCH "aarch64"
#endif

enum { PATH_BYTES = 4096, ENTRY_BYTES = 256, MOST_SUMS = 1 << 20, MOST_COPIED = 1 << 25 };
enum { OLDEST_INTERFACE = 6 }; /* which has hosted runs */
/* Of <linux/memfd.h> and <linux/fcntl.h>, which C libraries that are old lack. */
enum { CLOSED_ON_EXEC = 1, MAY_BE_SEALED = 2, EXECUTABLE = 16, ADD_SEALS = 1033, ALL_SEALS = 15 };

static go_package *opened;
static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;

typedef struct {
    char *text;
    size_t bytes;
} reason;

__attribute__((format(printf, 2, 3))) static int refuse(reason why, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(why.text, why.bytes, format, arguments);
    va_end(arguments);
    return 0;
}

/* ---- Files that have the digests of SHA256SUMS ---- */

/* A plain file of a package, -1 with the reason if there is none. */
static int open_plain(const char *folder, const char *name, reason why) {
    char path[PATH_BYTES];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (file < 0) return refuse(why, "%s: %s", path, strerror(errno)) - 1;
    if (!fstat(file, &status) && S_ISREG(status.st_mode)) return file;
    close(file);
    return refuse(why, "%s is not a plain file", path) - 1;
}

/* The content of a file with a zero behind it, to be freed; null if it is larger than `most`. */
static char *content_of(int file, size_t most) {
    struct stat status;
    if (fstat(file, &status) || (size_t)status.st_size > most) return NULL;
    const size_t bytes = (size_t)status.st_size;
    char *content = malloc(bytes + 1);
    size_t done = 0;
    while (content && done < bytes) {
        ssize_t got = pread(file, content + done, bytes - done, (off_t)done);
        if (got <= 0) break;
        done += (size_t)got;
    }
    if (!content) return NULL;
    content[done] = 0;
    return content;
}

/* A copy in memory that nobody can change, -1 without memory. */
static int sealed_copy(int file) {
    int copy =
        (int)syscall(SYS_memfd_create, "graphopt", CLOSED_ON_EXEC | MAY_BE_SEALED | EXECUTABLE);
    if (copy < 0) copy = (int)syscall(SYS_memfd_create, "graphopt", CLOSED_ON_EXEC | MAY_BE_SEALED);
    char buffer[1 << 16];
    ssize_t got = 0;
    for (off_t at = 0; copy >= 0 && (got = pread(file, buffer, sizeof buffer, at)) > 0; at += got)
        if (pwrite(copy, buffer, (size_t)got, at) != got) break;
    if (copy >= 0 && (got || fcntl(copy, ADD_SEALS, ALL_SEALS))) {
        close(copy);
        copy = -1;
    }
    return copy;
}

static int digest_of(int file, char digest[GO_SHA256_TEXT]) {
    struct stat status;
    if (fstat(file, &status)) return 0;
    const size_t bytes = (size_t)status.st_size;
    void *mapped = bytes ? mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, file, 0) : NULL;
    if (mapped == MAP_FAILED) return 0;
    go_sha256(mapped, bytes, digest);
    if (mapped) munmap(mapped, bytes);
    return 1;
}

/* The digest that SHA256SUMS lists for a name, null if it lists none. */
static const char *listed(const char *sums, const char *name) {
    char line[PATH_BYTES];
    snprintf(line, sizeof line, "  %s\n", name);
    const ptrdiff_t digits = GO_SHA256_TEXT - 1;
    for (const char *found = sums; (found = strstr(found, line)); found++) {
        const ptrdiff_t before = found - sums - digits;
        if (before == 0 || (before > 0 && sums[before - 1] == '\n')) return sums + before;
    }
    return NULL;
}

/* A file of a package whose content is what SHA256SUMS says: a copy if it is small, so that what
 * runs is what was checked. */
static int open_checked(const char *folder, const char *sums, const char *name, reason why) {
    const char *expected = listed(sums, name);
    if (!expected) return refuse(why, "%s/%s is not listed in SHA256SUMS", folder, name) - 1;
    int file = open_plain(folder, name, why);
    struct stat status;
    if (file < 0 || fstat(file, &status)) return -1;
    if (status.st_size <= MOST_COPIED) {
        const int copy = sealed_copy(file);
        close(file);
        if (copy < 0) return refuse(why, "no memory for a copy of %s/%s", folder, name) - 1;
        file = copy;
    }
    char digest[GO_SHA256_TEXT];
    if (digest_of(file, digest) && !strncmp(digest, expected, GO_SHA256_TEXT - 1)) return file;
    close(file);
    return refuse(why,
                  "%s/%s is truncated or altered: it is not what SHA256SUMS says; copy the "
                  "package again or make it again",
                  folder, name) -
           1;
}

static void state_of(int file, int64_t state[3]) {
    struct stat status;
    memset(state, 0, 3 * sizeof *state);
    if (fstat(file, &status)) return;
    state[0] = status.st_size;
    state[1] = status.st_mtim.tv_sec;
    state[2] = status.st_mtim.tv_nsec;
}

int go_package_is_changed(const go_package *package) {
    int64_t state[3];
    state_of(package->weights_file, state);
    return memcmp(state, package->weights_state, sizeof state) != 0;
}

/* ---- The library that fits this CPU ---- */

static int has_feature(const char *features, const char *name) {
    char word[64];
    return snprintf(word, sizeof word, " %s ", name) < (int)sizeof word && strstr(features, word);
}

/* The last line of lib/levels whose features this CPU has: its level, and how many features it
 * needs; -1 if there is none. */
static int choose_level(char *levels, char *level, size_t bytes) {
    char *features = go_cpu_features(), *lines, *words;
    int found = -1;
    for (char *line = strtok_r(levels, "\n", &lines); line && features;
         line = strtok_r(NULL, "\n", &lines)) {
        char *name = strtok_r(line, " ", &words), *need;
        int needed = 0;
        if (!name || strchr(name, '/')) continue;
        while ((need = strtok_r(NULL, " ", &words)) && has_feature(features, need)) needed++;
        if (need) continue;
        found = needed;
        snprintf(level, bytes, "%s", name);
    }
    free(features);
    return found;
}

/* ---- Which folder ---- */

typedef struct {
    char path[PATH_BYTES];
    char others[256]; /* one of its names for another architecture */
    char *sums;
    char level[64];
    int rank; /* features that its level needs; -1 if this CPU has none of them */
} candidate;

/* Looks at a folder that has the name of the package; keeps it if it is better than what is. */
static void consider(candidate *best, const char *path, const char *entry, reason why) {
    char name[PATH_BYTES], level[64] = "";
    int file = open_plain(path, "SHA256SUMS", why);
    char *sums = file < 0 ? NULL : content_of(file, MOST_SUMS), *levels = NULL;
    if (file >= 0) close(file);
    snprintf(name, sizeof name, "%s%slib/levels", entry, *entry ? "/" : "");
    if (sums && (file = open_checked(path, sums, name, why)) >= 0) {
        levels = content_of(file, MOST_SUMS);
        close(file);
    }
    int rank = levels ? choose_level(levels, level, sizeof level) : -1;
    if (levels && rank < 0)
        refuse(why, "this CPU (" ARCH ") runs none of the levels of %s; make the package for it",
               path);
    free(levels);
    const int is_better = rank > best->rank || (rank == best->rank && strcmp(path, best->path) < 0);
    if (rank < 0 || !is_better) {
        free(sums);
        return;
    }
    free(best->sums);
    best->sums = sums;
    best->rank = rank;
    snprintf(best->path, sizeof best->path, "%s", path);
    snprintf(best->level, sizeof best->level, "%s", level);
}

/* Every folder in `folder` that has the name, with or without architecture and target. */
static void search(candidate *best, const char *folder, const go_wanted *wanted, reason why) {
    char path[PATH_BYTES], mine[512];
    const size_t length = strlen(wanted->name);
    snprintf(mine, sizeof mine, "%s-" ARCH "-", wanted->name);
    DIR *listing = opendir(folder);
    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        if (strncmp(entry->d_name, wanted->name, length)) continue;
        if (entry->d_name[length] && strncmp(entry->d_name, mine, strlen(mine))) {
            if (entry->d_name[length] == '-')
                snprintf(best->others, sizeof best->others, "%.255s", entry->d_name + length + 1);
            continue;
        }
        if (snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) < (int)sizeof path)
            consider(best, path, wanted->entry, why);
    }
    if (listing) closedir(listing);
}

static int is_inside(const char *name) {
    return *name != '/' && strcmp(name, "..") && strncmp(name, "../", 3) && !strstr(name, "/..");
}

static go_finding find(candidate *best, const go_wanted *wanted, reason why) {
    if (!*wanted->name || !is_inside(wanted->entry) || strlen(wanted->entry) >= ENTRY_BYTES) {
        refuse(why, "a node's package '%s' with entry '%s' names no folder", wanted->name,
               wanted->entry);
        return GO_UNUSABLE;
    }
    *why.text = 0;
    best->rank = -1;
    if (*wanted->name == '/') {
        consider(best, wanted->name, wanted->entry, why);
        return best->rank >= 0 ? GO_FOUND : access(wanted->name, F_OK) ? GO_MISSING : GO_UNUSABLE;
    }
    if (strchr(wanted->name, '/') || !is_inside(wanted->name)) {
        refuse(why, "a node's package '%s' is neither a name nor a full path", wanted->name);
        return GO_UNUSABLE;
    }
    for (size_t i = 0; i < wanted->folder_count && best->rank < 0; i++)
        search(best, wanted->folders[i], wanted, why);
    if (best->rank >= 0) return GO_FOUND;
    if (*why.text) return GO_UNUSABLE;
    if (*best->others) {
        refuse(why, "package %s is built for %s, this CPU is " ARCH "; make it for this CPU too",
               wanted->name, best->others);
        return GO_UNUSABLE;
    }
    char places[1024] = "";
    for (size_t i = 0, at = 0; i < wanted->folder_count && at < sizeof places; i++)
        at += (size_t)snprintf(places + at, sizeof places - at, "%s%s", i ? ", " : "",
                               wanted->folders[i]);
    refuse(why,
           "package %s is missing: it is not in %s; name the folder that holds it in the "
           "session's entry graphopt.packages",
           wanted->name, places);
    return GO_MISSING;
}

/* ---- Opening ---- */

static int bind(void *library, go_functions *call, const char *path, reason why) {
    const struct {
        const char *name;
        void **function;
    } wanted[] = {
        {"go_level_refusal", (void **)&call->level_refusal},
        {"go_open", (void **)&call->open},
        {"go_close", (void **)&call->close},
        {"go_input_ports", (void **)&call->input_ports},
        {"go_output_ports", (void **)&call->output_ports},
        {"go_input_count", (void **)&call->input_count},
        {"go_output_count", (void **)&call->output_count},
        {"go_computed_count", (void **)&call->computed_count},
        {"go_context_new_hosted", (void **)&call->context_new_hosted},
        {"go_context_free", (void **)&call->context_free},
        {"go_output_shapes", (void **)&call->output_shapes},
        {"go_run_hosted", (void **)&call->run_hosted},
        {"go_last_error", (void **)&call->last_error},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (!(*wanted[i].function = dlsym(library, wanted[i].name)))
            return refuse(why, "the library of %s lacks %s", path, wanted[i].name);
    return 1;
}

/* A path of an open file that the loader has not seen: it takes equal paths for equal files. So the
 * bits of a number are spelled between the folders, which changes nothing. */
static void unique_path(char *path, size_t bytes, int file) {
    static unsigned number;
    size_t at = (size_t)snprintf(path, bytes, "/proc/self/task/../fd/");
    for (unsigned bits = ++number; bits; bits >>= 1)
        at += (size_t)snprintf(path + at, bytes - at, bits & 1 ? "./" : "/");
    snprintf(path + at, bytes - at, "%d", file);
}

static int load_library(go_package *package, const char *name, int64_t interface, reason why) {
    char path[PATH_BYTES];
    package->library_file = open_checked(package->path, package->sums, name, why);
    if (package->library_file < 0) return 0;
    unique_path(path, sizeof path, package->library_file);
    package->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!package->library)
        return refuse(why, "%s/%s does not load: %s", package->path, name, dlerror());
    void **version = (void **)&package->call.abi_version;
    *version = dlsym(package->library, "go_abi_version");
    const int32_t found = *version ? package->call.abi_version() : 0;
    const int64_t least = interface > OLDEST_INTERFACE ? interface : OLDEST_INTERFACE;
    if (found < least)
        return refuse(why,
                      "package %s has interface %d, and %lld is needed; make it again with a "
                      "newer graphopt",
                      package->path, found, (long long)least);
    if (!bind(package->library, &package->call, package->path, why)) return 0;
    const char *refusal = package->call.level_refusal();
    if (refusal) return refuse(why, "package %s cannot run: %s", package->path, refusal);
    return 1;
}

static int map_weights(go_package *package, const char *name, reason why) {
    char path[64];
    package->weights_file = open_checked(package->path, package->sums, name, why);
    if (package->weights_file < 0) return 0;
    state_of(package->weights_file, package->weights_state);
    snprintf(path, sizeof path, "/proc/self/fd/%d", package->weights_file);
    const go_code code = package->call.open(path, &package->module);
    if (code == GO_ERROR_MEMORY) return refuse(why, "no memory to map %s/%s", package->path, name);
    if (code != GO_OK) return refuse(why, "%s/%s is not of the right size", package->path, name);
    return 1;
}

static void release(go_package *package) {
    if (package->module) package->call.close(package->module);
    if (package->library) dlclose(package->library);
    if (package->library_file >= 0) close(package->library_file);
    if (package->weights_file >= 0) close(package->weights_file);
    free(package->sums);
    free(package->path);
    free(package);
}

/* Takes the candidate's sums. */
static go_package *load(candidate *found, const go_wanted *wanted, reason why) {
    char folder[ENTRY_BYTES + 1], name[PATH_BYTES];
    go_package *package = calloc(1, sizeof *package);
    if (!package) {
        refuse(why, "no memory for a package");
        free(found->sums);
        return NULL;
    }
    snprintf(folder, sizeof folder, "%s%s", wanted->entry, *wanted->entry ? "/" : "");
    *package = (go_package){.library_file = -1, .weights_file = -1, .users = 1};
    package->sums = found->sums;
    const size_t length = strlen(found->path) + strlen(folder) + 2;
    package->path = malloc(length);
    int is_open = package->path != NULL;
    if (is_open) {
        snprintf(package->path, length, "%s", found->path);
        snprintf(name, sizeof name, "%slib/%s.so", folder, found->level);
        is_open = load_library(package, name, wanted->interface, why);
    }
    if (is_open) {
        snprintf(name, sizeof name, "%sweights.bin", folder);
        is_open = map_weights(package, name, why);
    }
    if (is_open) {
        /* Which of several modules in one package this is. */
        snprintf(package->path, length, "%s%s%.*s", found->path, *folder ? "/" : "",
                 (int)strlen(wanted->entry), folder);
        return package;
    }
    release(package);
    return NULL;
}

static go_package *already_open(const candidate *found, const char *entry) {
    char path[2 * PATH_BYTES];
    snprintf(path, sizeof path, "%s%s%s", found->path, *entry ? "/" : "", entry);
    for (go_package *package = opened; package; package = package->next)
        if (!strcmp(package->path, path) && !strcmp(package->sums, found->sums)) return package;
    return NULL;
}

go_finding go_package_open(const go_wanted *wanted, go_package **package, char *why, size_t bytes) {
    candidate best = {.rank = -1};
    const reason said = {why, bytes};
    *package = NULL;
    go_finding finding = find(&best, wanted, said);
    if (finding != GO_FOUND) {
        free(best.sums);
        return finding;
    }
    pthread_mutex_lock(&opening);
    if ((*package = already_open(&best, wanted->entry))) {
        (*package)->users++;
        free(best.sums);
    } else if ((*package = load(&best, wanted, said))) {
        (*package)->next = opened;
        opened = *package;
    }
    pthread_mutex_unlock(&opening);
    return *package ? GO_FOUND : GO_UNUSABLE;
}

void go_package_close(go_package *package) {
    if (!package) return;
    pthread_mutex_lock(&opening);
    if (!--package->users) {
        go_package **link = &opened;
        while (*link != package) link = &(*link)->next;
        *link = package->next;
        release(package);
    }
    pthread_mutex_unlock(&opening);
}
