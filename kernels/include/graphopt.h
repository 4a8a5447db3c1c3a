/* The C interface of a compiled graphopt module.
 *
 * A module is one shared library and one weights file. Open it once, make a
 * context per concurrent caller, run. Contexts share the weights, which are
 * mapped read-only; each has its own memory and its own threads.
 *
 *     go_module *module;
 *     go_context *context;
 *     if (go_open("weights.bin", &module)) ...
 *     if (go_context_new(module, 0, &context)) ...
 *     if (go_run(context, inputs, outputs)) puts(go_last_error(context)->text);
 *     go_context_free(context);
 *     go_close(module);
 *
 * Every function returns GO_OK or the code of an error; a failed call changes
 * nothing but the error text. The interface only grows: go_abi_version() says
 * what the library has.
 */
#ifndef GRAPHOPT_H
#define GRAPHOPT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GO_ABI_VERSION 7
#define GO_MAX_RANK 8
#define GO_API __attribute__((visibility("default")))

typedef enum {
    GO_OK = 0,
    GO_ERROR_RANK = 1,      /* an input has another number of dimensions */
    GO_ERROR_DTYPE = 2,     /* an input has another element type */
    GO_ERROR_SHAPE = 3,     /* a fixed or shared dimension has another size */
    GO_ERROR_EMPTY = 4,     /* a dynamic dimension has size 0 */
    GO_ERROR_VALUE = 5,     /* the values of an input contradict its shape or a range */
    GO_ERROR_MEMORY = 6,    /* memory could not be had */
    GO_ERROR_FILE = 7,      /* the weights file is missing or has the wrong size */
    GO_ERROR_THREADS = 8,   /* a thread could not be started */
    GO_ERROR_CONDITION = 9, /* sizes break a condition of the model, such as T % 2 == 0 */
    GO_ERROR_LEVEL = 10,    /* this process cannot run the library's ISA level */
} go_code;

typedef struct {
    go_code code;
    int32_t input; /* index of the input, -1 if it is not about one */
    int32_t axis;  /* its axis, -1 if it is not about one */
    int64_t expected, got;
    char text[256];
} go_error;

/* A dense row-major tensor. dtype is a go_dtype of go_kernel.h. */
typedef struct {
    void *data;
    int32_t dtype;
    int32_t rank;
    int64_t shape[GO_MAX_RANK];
} go_tensor;

typedef struct go_module go_module;
typedef struct go_context go_context;

/* How many threads may run at once, over all modules that share it. A run of a
 * context takes the context's threads, or as many as the limit if that is less
 * (results are the same), and gives them back at its end. Where they are not
 * free, it sleeps; first come, first served. All zero but for the limit at the
 * beginning; the limit may change at any time and counts from the next run on
 * that begins or ends. */
typedef struct {
    uint32_t limit;         /* 0 when it is first shared: as many as this process may use */
    uint32_t running;       /* threads of runs under way */
    uint32_t next, serving; /* tickets of the runs that wait */
    uint32_t changes;       /* of the above; what waiting runs sleep on */
    uint32_t process;       /* whose runs these are: a forked child begins anew. Since version 4:
                             * who shares a gate is compiled with the header of that version */
} go_gate;

GO_API int32_t go_abi_version(void);

/* Maps the weights, once the library's ISA level has started. */
GO_API go_code go_open(const char *weights_path, go_module **module);
GO_API void go_close(go_module *module);

/* The library's ISA level, such as avx2, and why this process cannot run it, or null. The first
 * call starts the level: it does what its instructions need of the process, such as asking the
 * system for room for their registers. Since version 5. */
GO_API const char *go_level(void);
GO_API const char *go_level_refusal(void);

/* Makes the module share a gate, which must outlive it; before the first context.
 * Without this call it shares one with the modules of its own library. */
GO_API void go_share_gate(go_module *module, go_gate *gate);

/* For threads of the caller's own, which make what the module takes, such as features:
 * takes `threads` (at least 1) from the module's gate as a run does, or as many as the
 * limit or as this process may use if that is less. Returns how many, to be given
 * back; until then their caller must not run a module. Since version 3. */
GO_API int32_t go_take_threads(go_module *module, int32_t threads);
GO_API void go_give_threads(go_module *module, int32_t threads);

/* What a module says of its inputs and outputs: their go_dtype, number of dimensions, and
 * whether a run writes to them, as it does to an input that is a state. Since version 4. */
typedef struct {
    int32_t dtype;
    int32_t rank;
    int32_t written;
} go_port;

GO_API const go_port *go_input_ports(const go_module *module);
GO_API const go_port *go_output_ports(const go_module *module);
GO_API int32_t go_input_count(const go_module *module);
GO_API int32_t go_output_count(const go_module *module);
GO_API int32_t go_step_count(const go_module *module);

/* threads = 0 takes as many as this process may use, at most 4095 may be asked for; fewer run if
 * the gate has fewer. In the child of a fork a context starts threads of its own with its first
 * run; what a thread of the parent had under way is not in the child. */
GO_API go_code go_context_new(go_module *module, int32_t threads, go_context **context);
GO_API void go_context_free(go_context *context);
GO_API int32_t go_thread_count(const go_context *context);

/* Checks the inputs and fills dtype, rank and shape of the outputs. A size that the graph
 * computes from data, such as a number of tokens, is the largest that it can be. */
GO_API go_code go_output_shapes(go_context *context, const go_tensor *inputs, go_tensor *outputs);

/* Runs the graph. Output tensors must have the shapes of go_output_shapes and
 * memory for them, aligned to 64 bytes or not, that overlaps no input. Where sizes
 * depend on data, the shapes of the outputs become those that were computed; the
 * elements are dense in these shapes, at the beginning of the memory. */
GO_API go_code go_run(go_context *context, const go_tensor *inputs, go_tensor *outputs);

/* The same, and the seconds of every step, until the first thread found it done. */
GO_API go_code go_profile(go_context *context, const go_tensor *inputs, go_tensor *outputs,
                          double *seconds);

/* The same, and what each of go_thread_count threads did: when it began, and for each step when it
 * had no more to do and when it went on. So `marks` has 1 + 2 * go_step_count seconds a thread,
 * since the run began; 0 where a thread took no part. Since version 7. */
GO_API go_code go_profile_threads(go_context *context, const go_tensor *inputs, go_tensor *outputs,
                                  double *seconds, double *marks);

/* The threads of a program that has a pool of its own, in place of a context's: calls
 * task(argument, i) for every i below `count`, at once or one after another, on any threads, and
 * returns when all calls have returned. */
typedef struct {
    void (*parallel_for)(void *pool, void (*task)(void *argument, size_t index), size_t count,
                         void *argument);
    void *pool;
} go_host;

/* A context without threads of its own, for go_run_hosted alone; `threads` as above. Since
 * version 6. */
GO_API go_code go_context_new_hosted(go_module *module, int32_t threads, go_context **context);

/* Runs the graph on the threads of a host, which waits for no gate. Since version 6. */
GO_API go_code go_run_hosted(go_context *context, const go_tensor *inputs, go_tensor *outputs,
                             const go_host *host);

/* How many sizes the graph computes from data: if none, go_output_shapes gives what a run makes.
 * Since version 6. */
GO_API int32_t go_computed_count(const go_module *module);

/* What went wrong in the last call on this context. */
GO_API const go_error *go_last_error(const go_context *context);

/* Bytes of working memory that the context holds. */
GO_API size_t go_arena_bytes(const go_context *context);

#ifdef __cplusplus
}
#endif
#endif
