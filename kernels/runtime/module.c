/* Modules, contexts and runs: the functions of graphopt.h. */
#define _GNU_SOURCE
#include "go_module.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cpus.h"
#include "gate.h"
#include "team.h"

struct go_module {
    const unsigned char *weights;
    size_t bytes;
    go_gate *gate;
};

static go_gate own_gate;

struct go_context {
    go_module *module;
    go_pool *pool;
    unsigned char *arena;
    size_t arena_bytes;
    int64_t *dims; /* of the inputs, then those that steps compute: their bounds until a run ends */
    int64_t *computed;
    int64_t (*shapes)[GO_MAX_RANK];
    go_error error;
};

int32_t go_abi_version(void) { return GO_ABI_VERSION; }
int32_t go_input_count(const go_module *module) {
    (void)module;
    return go_generated_module.input_count;
}
int32_t go_output_count(const go_module *module) {
    (void)module;
    return go_generated_module.output_count;
}
const go_port *go_input_ports(const go_module *module) {
    (void)module;
    return go_generated_module.inputs;
}
const go_port *go_output_ports(const go_module *module) {
    (void)module;
    return go_generated_module.outputs;
}
int32_t go_step_count(const go_module *module) {
    (void)module;
    return go_generated_module.step_count;
}

int32_t go_computed_count(const go_module *module) {
    (void)module;
    return go_generated_module.computed_count;
}

go_code go_open(const char *weights_path, go_module **module) {
    *module = NULL;
    if (go_level_refusal()) return GO_ERROR_LEVEL;
    int file = open(weights_path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return GO_ERROR_FILE;
    struct stat status;
    size_t bytes = go_generated_module.weights_bytes;
    if (fstat(file, &status) || (size_t)status.st_size != bytes) {
        close(file);
        return GO_ERROR_FILE;
    }
    void *weights = NULL;
    if (bytes) {
        /* With its pages at once: faults would slow the first run. */
        weights = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
        if (weights == MAP_FAILED) weights = NULL;
    }
    close(file);
    if (bytes && !weights) return GO_ERROR_MEMORY;
    *module = malloc(sizeof **module);
    if (!*module) {
        if (weights) munmap(weights, bytes);
        return GO_ERROR_MEMORY;
    }
    **module = (go_module){weights, bytes, NULL};
    go_share_gate(*module, &own_gate);
    return GO_OK;
}

void go_share_gate(go_module *module, go_gate *gate) {
    go_gate_open(gate);
    module->gate = gate;
}

int32_t go_take_threads(go_module *module, int32_t threads) {
    int32_t most = go_default_threads();
    return go_gate_enter(module->gate, threads < most ? threads : most);
}

void go_give_threads(go_module *module, int32_t threads) { go_gate_leave(module->gate, threads); }

void go_close(go_module *module) {
    if (!module) return;
    if (module->bytes) munmap((void *)module->weights, module->bytes);
    free(module);
}

go_code go_context_new_hosted(go_module *module, int32_t threads, go_context **context) {
    const go_module_desc *desc = &go_generated_module;
    *context = NULL;
    if (threads < 0 || threads > GO_MAX_THREADS) return GO_ERROR_THREADS;
    *context = calloc(1, sizeof **context);
    if (!*context) return GO_ERROR_MEMORY;
    go_context *c = *context;
    c->module = module;
    c->dims = calloc((size_t)(desc->dim_count + desc->computed_count) + 1, sizeof *c->dims);
    c->computed = calloc((size_t)desc->computed_count + 1, sizeof *c->computed);
    int ports = desc->input_count > desc->output_count ? desc->input_count : desc->output_count;
    c->shapes = calloc((size_t)ports + 1, sizeof *c->shapes);
    c->pool = go_pool_new(threads ? threads : go_default_threads(), &module->gate->running);
    if (c->dims && c->computed && c->shapes && c->pool) return GO_OK;
    go_context_free(c);
    *context = NULL;
    return GO_ERROR_MEMORY;
}

go_code go_context_new(go_module *module, int32_t threads, go_context **context) {
    go_code code = go_context_new_hosted(module, threads, context);
    if (code != GO_OK || go_pool_start((*context)->pool)) return code;
    go_context_free(*context);
    *context = NULL;
    return GO_ERROR_THREADS;
}

void go_context_free(go_context *context) {
    if (!context) return;
    go_pool_free(context->pool);
    free(context->arena);
    free(context->dims);
    free(context->computed);
    free(context->shapes);
    free(context);
}

int32_t go_thread_count(const go_context *context) { return go_pool_size(context->pool); }
const go_error *go_last_error(const go_context *context) { return &context->error; }
size_t go_arena_bytes(const go_context *context) { return context->arena_bytes; }

__attribute__((format(printf, 7, 8))) static go_code refuse(go_context *c, go_code code, int input,
                                                            int axis, int64_t expected, int64_t got,
                                                            const char *format, ...) {
    c->error = (go_error){code, input, axis, expected, got, ""};
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(c->error.text, sizeof c->error.text, format, arguments);
    va_end(arguments);
    return code;
}

/* No memory holds an input of 2**47 elements; what generated code computes with the sizes of
 * smaller ones stays far from overflow. */
static go_code refuse_huge(go_context *c, const go_tensor *inputs) {
    for (int i = 0; i < go_generated_module.input_count; i++) {
        int64_t count = 1;
        for (int a = 0; a < inputs[i].rank; a++)
            if (__builtin_mul_overflow(count, inputs[i].shape[a], &count) || count >> 47)
                return refuse(c, GO_ERROR_MEMORY, i, a, 0, inputs[i].shape[a],
                              "input %d is larger than any memory", i);
    }
    return GO_OK;
}

/* Checks the inputs against the ports and sets the dims. */
static go_code bind(go_context *c, const go_tensor *inputs) {
    const go_module_desc *desc = &go_generated_module;
    c->error = (go_error){.code = GO_OK, .input = -1, .axis = -1};
    for (int i = 0; i < desc->input_count; i++) {
        const go_port *port = &desc->inputs[i];
        if (inputs[i].dtype != port->dtype)
            return refuse(c, GO_ERROR_DTYPE, i, -1, port->dtype, inputs[i].dtype,
                          "input %d has dtype %d, not %d", i, inputs[i].dtype, port->dtype);
        if (inputs[i].rank != port->rank)
            return refuse(c, GO_ERROR_RANK, i, -1, port->rank, inputs[i].rank,
                          "input %d has %d dimensions, not %d", i, inputs[i].rank, port->rank);
    }
    for (int d = 0; d < desc->dim_count; d++)
        c->dims[d] = inputs[desc->dims[d].input].shape[desc->dims[d].axis];
    for (int d = 0; d < desc->dim_count; d++)
        if (c->dims[d] < 1 && !desc->dims[d].may_be_empty)
            return refuse(c, GO_ERROR_EMPTY, desc->dims[d].input, desc->dims[d].axis, 1, c->dims[d],
                          "input %d has size %lld along axis %d", desc->dims[d].input,
                          (long long)c->dims[d], desc->dims[d].axis);
    const char *broken = desc->broken_condition(c->dims);
    if (broken)
        return refuse(c, GO_ERROR_CONDITION, -1, -1, 0, 0, "the sizes do not satisfy %s", broken);
    desc->bound_dims(c->dims);
    desc->input_shapes(c->dims, c->shapes);
    for (int i = 0; i < desc->input_count; i++)
        for (int a = 0; a < inputs[i].rank; a++)
            if (inputs[i].shape[a] != c->shapes[i][a])
                return refuse(c, GO_ERROR_SHAPE, i, a, c->shapes[i][a], inputs[i].shape[a],
                              "input %d has size %lld along axis %d, not %lld", i,
                              (long long)inputs[i].shape[a], a, (long long)c->shapes[i][a]);
    return refuse_huge(c, inputs);
}

static void describe_outputs(go_context *c, int has_run, go_tensor *outputs) {
    const go_module_desc *desc = &go_generated_module;
    (has_run ? desc->output_shapes : desc->output_rooms)(c->dims, c->shapes);
    for (int i = 0; i < desc->output_count; i++) {
        outputs[i].dtype = desc->outputs[i].dtype;
        outputs[i].rank = desc->outputs[i].rank;
        memcpy(outputs[i].shape, c->shapes[i], sizeof outputs[i].shape);
    }
}

go_code go_output_shapes(go_context *context, const go_tensor *inputs, go_tensor *outputs) {
    go_code code = bind(context, inputs);
    if (code == GO_OK) describe_outputs(context, 0, outputs);
    return code;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Of x86_64, and of Arm with pages of 4 KB. Rows are often a small page apart, and each page
 * takes an entry of the TLB. If the system has none, the arena is in small ones. */
enum { HUGE_PAGE = 2 << 20 };

static go_code reserve(go_context *c) {
    int64_t bytes = go_generated_module.arena_bytes(c->dims, go_pool_size(c->pool));
    if (bytes < 0) return refuse(c, GO_ERROR_MEMORY, -1, -1, 0, bytes, "sizes overflow");
    if ((size_t)bytes <= c->arena_bytes) return GO_OK;
    void *arena = NULL;
    const size_t alignment = (size_t)bytes < HUGE_PAGE ? GO_ALIGNMENT : HUGE_PAGE;
    if (posix_memalign(&arena, alignment, (size_t)bytes))
        return refuse(c, GO_ERROR_MEMORY, -1, -1, bytes, 0, "no memory for %lld bytes",
                      (long long)bytes);
    if (alignment == HUGE_PAGE)
        madvise(arena, (size_t)bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
    free(c->arena);
    c->arena = arena;
    c->arena_bytes = (size_t)bytes;
    return GO_OK;
}

/* Before a run of which times are wanted: no step has ended. */
static double begin_times(double *ends) {
    if (!ends) return 0;
    memset(ends, 0, (size_t)go_generated_module.step_count * sizeof *ends);
    return now();
}

/* From when steps ended to how long they took; 0 for those that did not run. */
static void end_times(double *ends, double begun) {
    for (int i = 0; ends && i < go_generated_module.step_count; i++) {
        const double end = ends[i];
        if (end == 0) continue;
        ends[i] = end - begun;
        begun = end;
    }
}

enum { MARKS_BEFORE_STEPS = 1, MARKS_OF_STEP = 2 };

static size_t marks_of_thread(void) {
    return MARKS_BEFORE_STEPS + MARKS_OF_STEP * (size_t)go_generated_module.step_count;
}

/* From times of the clock to those since the run began; 0 stays for what did not happen. */
static void end_marks(double *marks, int threads, double begun) {
    for (size_t i = 0; marks && i < (size_t)threads * marks_of_thread(); i++)
        if (marks[i] != 0) marks[i] -= begun;
}

static void run_frame(void *argument, go_team *team) {
    const go_frame *frame = argument;
    if (frame->marks) frame->marks[team->rank * marks_of_thread()] = now();
    go_generated_module.run(frame, team);
}

/* On the host's threads, or the context's own without one. */
static go_code run(go_context *context, const go_tensor *inputs, go_tensor *outputs,
                   double *seconds, double *marks, const go_host *host) {
    const go_module_desc *desc = &go_generated_module;
    go_code code = bind(context, inputs);
    if (code != GO_OK || (code = reserve(context)) != GO_OK) return code;
    if (!host && !go_pool_start(context->pool))
        return refuse(context, GO_ERROR_THREADS, -1, -1, go_pool_size(context->pool), 0,
                      "%d threads could not be started", go_pool_size(context->pool) - 1);
    void *in[desc->input_count + 1], *out[desc->output_count + 1];
    for (int i = 0; i < desc->input_count; i++) in[i] = inputs[i].data;
    for (int i = 0; i < desc->output_count; i++) out[i] = outputs[i].data;
    atomic_int failed = 0;
    go_frame frame = {
        .inputs = in,
        .outputs = out,
        .weights = context->module->weights,
        .arena = context->arena,
        .dims = context->dims,
        .computed = context->computed,
        .error = &context->error,
        .failed = &failed,
        .ends = seconds,
        .marks = marks,
    };
    if (host) {
        go_pool_run_hosted(context->pool, host, run_frame, &frame);
    } else {
        int threads = go_gate_enter(context->module->gate, go_pool_size(context->pool));
        const double begun = begin_times(seconds);
        go_pool_run(context->pool, threads, run_frame, &frame);
        end_times(seconds, begun);
        end_marks(marks, threads, begun);
        go_gate_leave(context->module->gate, threads);
    }
    if (context->error.code != GO_OK || !desc->computed_count) return context->error.code;
    memcpy(context->dims + desc->dim_count, context->computed,
           (size_t)desc->computed_count * sizeof *context->computed);
    describe_outputs(context, 1, outputs);
    return GO_OK;
}

go_code go_profile(go_context *context, const go_tensor *inputs, go_tensor *outputs,
                   double *seconds) {
    return run(context, inputs, outputs, seconds, NULL, NULL);
}

go_code go_profile_threads(go_context *context, const go_tensor *inputs, go_tensor *outputs,
                           double *seconds, double *marks) {
    memset(marks, 0, (size_t)go_pool_size(context->pool) * marks_of_thread() * sizeof *marks);
    return run(context, inputs, outputs, seconds, marks, NULL);
}

go_code go_run(go_context *context, const go_tensor *inputs, go_tensor *outputs) {
    return run(context, inputs, outputs, NULL, NULL, NULL);
}

go_code go_run_hosted(go_context *context, const go_tensor *inputs, go_tensor *outputs,
                      const go_host *host) {
    return run(context, inputs, outputs, NULL, NULL, host);
}

void go_step(const go_frame *frame, go_team *team, int step) {
    double *mark = NULL;
    if (frame->marks) {
        mark = frame->marks + team->rank * marks_of_thread() + MARKS_BEFORE_STEPS;
        mark += MARKS_OF_STEP * step;
        mark[0] = now();
    }
    go_barrier(team);
#if defined(GO_TRACE)
    go_trace_step();
#endif
    if (!frame->ends) return;
    /* A thread that the operating system has set aside finds many steps done. */
    double none = 0, time = now();
    if (mark) mark[1] = time;
    __atomic_compare_exchange(frame->ends + step, &none, &time, 0, __ATOMIC_RELAXED,
                              __ATOMIC_RELAXED);
}

void go_fail(const go_frame *frame, go_code code, int input, int64_t expected, int64_t got,
             const char *text) {
    if (atomic_exchange(frame->failed, 1)) return;
    *frame->error = (go_error){code, input, -1, expected, got, ""};
    snprintf(frame->error->text, sizeof frame->error->text, "%s", text);
}

void go_refuse_sizes(const go_frame *frame, const char *condition) {
    char text[sizeof frame->error->text];
    snprintf(text, sizeof text, "the sizes that it computes do not satisfy %s", condition);
    go_fail(frame, GO_ERROR_CONDITION, -1, 0, 0, text);
}

void go_check_dim(const go_frame *frame, int64_t *computed, const char *text) {
    int64_t most = frame->dims[go_generated_module.dim_count + (computed - frame->computed)];
    if (*computed >= 0 && *computed <= most) return;
    go_fail(frame, GO_ERROR_VALUE, -1, most, *computed, text);
    *computed = go_smaller(go_larger(*computed, 0), most);
}
