/* qemu plugin: counts the executions of every translated block, and records the order of the
 * blocks that begin in given address ranges.
 *
 *   out=FILE    "address instructions count" of each block, address in hex
 *   trace=FILE  the order: 32-bit little-endian numbers of lines of FILE
 *   cap=N       blocks of the order to record at most
 *   range=A-B   a range, in hex, B excluded; any number of them
 *
 * Written against plugin API 1 (qemu 7 and 8). The few prototypes are declared here, so that no
 * header of qemu is needed. For guests with one thread. */
#include <inttypes.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
typedef void (*trans_cb)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*exit_cb)(qemu_plugin_id_t, void *);
typedef void (*exec_cb)(unsigned vcpu, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, trans_cb);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int op, void *ptr,
                                              uint64_t imm);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, exec_cb, int flags, void *data);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, exit_cb, void *);

EXPORT int qemu_plugin_version = 1;

struct block {
    uint64_t addr, insns, count;
    uint32_t id;
    struct block *next;
};

enum { MAX_RANGES = 4096 };
static uint64_t range_lo[MAX_RANGES], range_hi[MAX_RANGES];
static size_t n_ranges;
static struct block *first, **tail = &first;
static uint32_t n_blocks;
static uint32_t *trace;
static uint64_t n_trace, trace_cap;
static FILE *out, *trace_out;

static void at_exec(unsigned vcpu, void *data) {
    (void)vcpu;
    if (n_trace < trace_cap) trace[n_trace++] = ((struct block *)data)->id;
}

static void at_translate(qemu_plugin_id_t plugin, struct qemu_plugin_tb *tb) {
    (void)plugin;
    struct block *b = calloc(1, sizeof *b); /* never moved: generated code increments b->count */
    if (!b) abort();
    b->addr = qemu_plugin_tb_vaddr(tb);
    b->insns = qemu_plugin_tb_n_insns(tb);
    b->id = n_blocks++;
    *tail = b;
    tail = &b->next;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, 0 /* add u64 */, &b->count, 1);
    for (size_t i = 0; i < n_ranges; ++i) {
        if (b->addr >= range_lo[i] && b->addr < range_hi[i]) {
            qemu_plugin_register_vcpu_tb_exec_cb(tb, at_exec, 0 /* no registers */, b);
            break;
        }
    }
}

static void at_exit(qemu_plugin_id_t plugin, void *data) {
    (void)plugin, (void)data;
    for (const struct block *b = first; b; b = b->next) {
        fprintf(out, "%" PRIx64 " %" PRIu64 " %" PRIu64 "\n", b->addr, b->insns, b->count);
    }
    fclose(out);
    if (trace_out) {
        fwrite(trace, sizeof *trace, n_trace, trace_out);
        fclose(trace_out);
    }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t plugin, const void *info, int argc, char **argv) {
    (void)info;
    for (int i = 0; i < argc; ++i) {
        uint64_t lo, hi;
        if (!strncmp(argv[i], "out=", 4)) out = fopen(argv[i] + 4, "w");
        if (!strncmp(argv[i], "trace=", 6)) trace_out = fopen(argv[i] + 6, "wb");
        if (!strncmp(argv[i], "cap=", 4)) trace_cap = strtoull(argv[i] + 4, NULL, 10);
        if (sscanf(argv[i], "range=%" SCNx64 "-%" SCNx64, &lo, &hi) == 2 && n_ranges < MAX_RANGES) {
            range_lo[n_ranges] = lo;
            range_hi[n_ranges++] = hi;
        }
    }
    trace = malloc((trace_cap + 1) * sizeof *trace);
    if (!out || !trace) return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(plugin, at_translate);
    qemu_plugin_register_atexit_cb(plugin, at_exit, NULL);
    return 0;
}
