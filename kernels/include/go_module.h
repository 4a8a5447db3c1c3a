/* What a generated module gives to the runtime, and what the runtime gives it. */
#ifndef GO_MODULE_H
#define GO_MODULE_H

#include "go_kernel.h"
#include "graphopt.h"

/* One run of a graph, shared by the threads of the team. */
typedef struct {
    void *const *inputs;
    void *const *outputs;
    const unsigned char *weights;
    unsigned char *arena;
    const int64_t *dims; /* of the inputs, then the bounds of computed ones */
    int64_t *computed;   /* dims that steps compute */
    go_error *error;     /* written by the thread that sets `failed` */
    atomic_int *failed;  /* whether a step has failed */
    double *ends;        /* of every step, when the first thread found it done; or null */
    double *marks;       /* of every thread, as for go_profile_threads, but by the clock; or null */
} go_frame;

/* The size of a dim is that of an axis of an input. */
typedef struct {
    int32_t input;
    int32_t axis;
    int32_t may_be_empty; /* found in data before the module runs */
} go_dim_source;

typedef struct {
    const char *name;
    int32_t input_count, output_count, dim_count, computed_count, step_count;
    const go_port *inputs;
    const go_port *outputs;
    const go_dim_source *dims;
    size_t weights_bytes;
    void (*bound_dims)(int64_t *dims);
    void (*input_shapes)(const int64_t *dims, int64_t (*shapes)[GO_MAX_RANK]);
    void (*output_rooms)(const int64_t *dims, int64_t (*shapes)[GO_MAX_RANK]);  /* before a run */
    void (*output_shapes)(const int64_t *dims, int64_t (*shapes)[GO_MAX_RANK]); /* behind it */
    const char *(*broken_condition)(const int64_t *dims); /* as text, or null */
    int64_t (*arena_bytes)(const int64_t *dims, int64_t threads);
    void (*run)(const go_frame *frame, go_team *team);
} go_module_desc;

/* Defined by the generated module. */
extern const go_module_desc go_generated_module;

/* Ends a step: waits for the team, and notes the time if the run is profiled. */
void go_step(const go_frame *frame, go_team *team, int step);

/* Records a failure found while running; the first one stays. */
void go_fail(const go_frame *frame, go_code code, int input, int64_t expected, int64_t got,
             const char *text);

/* Checks a dim that the step before has computed: at least 0, at most its bound. What is
 * not is a failure that names the value as `text`, and becomes a size that is legal. */
void go_check_dim(const go_frame *frame, int64_t *computed, const char *text);

/* Records that sizes which steps have computed break a condition; the run ends there. */
void go_refuse_sizes(const go_frame *frame, const char *condition);

static inline int64_t go_larger(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t go_smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* Quotients rounded down and up, and the remainder of the first, as in Python: for divisors
 * that are not zero. */
static inline int64_t go_floor_div(int64_t a, int64_t b) {
    return a / b - (a % b && (a < 0) != (b < 0));
}
static inline int64_t go_ceil_div(int64_t a, int64_t b) {
    return a / b + (a % b && (a < 0) == (b < 0));
}
static inline int64_t go_modulo(int64_t a, int64_t b) {
    const int64_t rest = a % b;
    return rest && (rest < 0) != (b < 0) ? rest + b : rest;
}

/* Sizes in the arena are multiples of this, so every buffer is aligned to it. */
#define GO_ALIGNMENT 64
static inline int64_t go_align(int64_t bytes) {
    return (bytes + GO_ALIGNMENT - 1) / GO_ALIGNMENT * GO_ALIGNMENT;
}

#endif
