/* Test host: runs one kernel on the cases of a request file.
 *
 *   host REQUEST RESPONSE        (linked with a file that defines go_host_kernel)
 *
 * All numbers are little-endian u64. Request: case count, then per case
 *   threads, args bytes, buffer count, pointer count,
 *   per buffer: size, alignment, contents;  the argument struct;
 *   per pointer: offset in the struct, buffer, byte offset.
 * Response, per case: 0 or 1 + the index of a buffer whose surroundings were
 * written, then the contents of all buffers, in order.
 *
 * Every buffer ends against an unreadable page, as near as its alignment allows,
 * and everything between the buffer and its pages is filled with a pattern.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "go_team.h"
#include "graphopt.h"

/* Under ASan the bytes around a buffer may not be read either, wherever the page ends. */
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)(at), (void)(bytes))
#endif

enum { MAX_THREADS = 16, GUARD = 0xA5 };

extern void (*const go_host_kernel)(go_team *team, const void *args);

typedef struct {
    unsigned char *map, *data;
    size_t map_bytes, open_bytes, size;
} buffer;

typedef struct {
    go_team team;
    const void *args;
} thread_job;

static void fail(const char *what) {
    fprintf(stderr, "host: %s\n", what);
    exit(2);
}

static void read_bytes(FILE *f, void *dst, size_t n) {
    if (n && fread(dst, 1, n, f) != n) fail("short request");
}

static uint64_t read_u64(FILE *f) {
    uint64_t x;
    read_bytes(f, &x, sizeof x);
    return x;
}

static buffer open_buffer(size_t size, size_t alignment) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    buffer b = {.size = size};
    b.open_bytes = (size + 256 + page) / page * page;
    b.map_bytes = b.open_bytes + page;
    b.map = mmap(NULL, b.map_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (b.map == MAP_FAILED) fail("no memory");
    if (mprotect(b.map + b.open_bytes, page, PROT_NONE)) fail("mprotect");
    memset(b.map, GUARD, b.open_bytes);
    b.data = b.map + (b.open_bytes - size) / alignment * alignment;
    return b;
}

static void forbid_guards(const buffer *b) {
    ASAN_POISON_MEMORY_REGION(b->map, (size_t)(b->data - b->map));
    ASAN_POISON_MEMORY_REGION(b->data + b->size,
                              (size_t)(b->map + b->open_bytes - b->data) - b->size);
}

static int guards_intact(const buffer *b) {
    ASAN_UNPOISON_MEMORY_REGION(b->map, b->open_bytes);
    for (const unsigned char *p = b->map; p < b->data; p++)
        if (*p != GUARD) return 0;
    for (const unsigned char *p = b->data + b->size; p < b->map + b->open_bytes; p++)
        if (*p != GUARD) return 0;
    return 1;
}

static void *thread_main(void *p) {
    thread_job *job = p;
    go_host_kernel(&job->team, job->args);
    go_barrier(&job->team);
    return NULL;
}

static void run_team(unsigned threads, const void *args) {
    static go_share shares[MAX_THREADS];
    static go_team_shared shared;
    memset(shares, 0, sizeof shares);
    memset(&shared, 0, sizeof shared);
    shared.shares = shares;
    thread_job jobs[MAX_THREADS];
    pthread_t handles[MAX_THREADS];
    for (unsigned i = 0; i < threads; i++) {
        jobs[i] = (thread_job){{.rank = i, .size = threads, .shared = &shared}, args};
        if (i && pthread_create(&handles[i], NULL, thread_main, &jobs[i])) fail("pthread_create");
    }
    thread_main(&jobs[0]);
    for (unsigned i = 1; i < threads; i++) pthread_join(handles[i], NULL);
}

static void run_case(FILE *in, FILE *out) {
    uint64_t threads = read_u64(in), args_bytes = read_u64(in);
    uint64_t buffers = read_u64(in), pointers = read_u64(in);
    if (threads < 1 || threads > MAX_THREADS) fail("thread count");
    buffer *b = calloc(buffers + 1, sizeof *b);
    for (uint64_t i = 0; i < buffers; i++) {
        uint64_t size = read_u64(in), alignment = read_u64(in);
        b[i] = open_buffer(size, alignment);
        read_bytes(in, b[i].data, size);
        forbid_guards(&b[i]);
    }
    unsigned char *args = calloc(args_bytes + 1, 1);
    read_bytes(in, args, args_bytes);
    for (uint64_t i = 0; i < pointers; i++) {
        uint64_t offset = read_u64(in), index = read_u64(in), byte = read_u64(in);
        if (index >= buffers || offset + sizeof(void *) > args_bytes) fail("pointer");
        void *p = b[index].data + byte;
        memcpy(args + offset, &p, sizeof p);
    }
    run_team((unsigned)threads, args);
    uint64_t broken = 0;
    for (uint64_t i = buffers; i-- > 0;)
        if (!guards_intact(&b[i])) broken = 1 + i;
    fwrite(&broken, sizeof broken, 1, out);
    for (uint64_t i = 0; i < buffers; i++) {
        fwrite(b[i].data, 1, b[i].size, out);
        munmap(b[i].map, b[i].map_bytes);
    }
    fflush(out); /* so that a crash tells which case it was */
    free(args);
    free(b);
}

int main(int argc, char **argv) {
    FILE *in = argc == 3 ? fopen(argv[1], "rb") : NULL;
    FILE *out = argc == 3 ? fopen(argv[2], "wb") : NULL;
    if (!in || !out) fail("usage: host REQUEST RESPONSE");
    if (go_level_refusal()) fail(go_level_refusal());
    for (uint64_t cases = read_u64(in); cases > 0; cases--) run_case(in, out);
    return fclose(out) ? 2 : 0;
}
