/* A caller of a compiled module, as a user would write it: f32[B, T, 48] -> f32[B, T, 24].
 *
 *     caller weights.bin
 *
 * Prints a line per finding; tests/test_c_api.py knows what they should be.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "graphopt.h"

enum { BATCH = 2, LENGTH = 7, WIDTH = 48, OUT = 24, F32 = 0, F64 = 2 };

static float input[BATCH * LENGTH * WIDTH];

static go_tensor example(void) {
    for (int i = 0; i < BATCH * LENGTH * WIDTH; i++) input[i] = (float)(i % 17) * 0.125f - 1.0f;
    return (go_tensor){input, F32, 3, {BATCH, LENGTH, WIDTH}};
}

static void show_refusal(go_context *context, const char *what, go_tensor given) {
    go_tensor made = {0};
    go_code code = go_output_shapes(context, &given, &made);
    const go_error *e = go_last_error(context);
    printf("%s: code %d, %d, input %d, axis %d, expected %lld, got %lld, %s, rank %d\n", what, code,
           e->code, e->input, e->axis, (long long)e->expected, (long long)e->got, e->text,
           made.rank);
}

typedef struct {
    go_module *module;
    float *result;
    int same;
} job;

static void *run_often(void *argument) {
    job *mine = argument;
    go_context *context;
    go_tensor given = example(), made = {0};
    float result[BATCH * LENGTH * OUT];
    if (go_context_new(mine->module, 2, &context)) return NULL;
    mine->same = 1;
    for (int i = 0; i < 200; i++) {
        memset(result, 0xff, sizeof result);
        made.data = result;
        mine->same &= go_run(context, &given, &made) == GO_OK;
        mine->same &= !memcmp(result, mine->result, sizeof result);
    }
    go_context_free(context);
    return NULL;
}

/* Whether a forked child runs as its parent does, while other threads of the parent run. */
static int runs_in_child(go_module *module, go_context *context, const float *expected) {
    pid_t child = fork();
    if (child) {
        int status;
        return child > 0 && waitpid(child, &status, 0) == child && !status;
    }
    job own = {module, (float *)expected, 0};
    float result[BATCH * LENGTH * OUT];
    go_tensor given = example(), made = {.data = result};
    alarm(30);
    if (go_run(context, &given, &made)) _exit(1);
    run_often(&own);
    go_context_free(context);
    _exit(memcmp(result, expected, sizeof result) || !own.same);
}

int main(int argc, char **argv) {
    go_module *module;
    go_context *context;
    if (argc != 2) return 2;
    printf("abi %d\n", go_abi_version());
    printf("missing: %d %d\n", go_open("/no/such/file", &module), module == NULL);
    printf("wrong size: %d %d\n", go_open(argv[0], &module), module == NULL);
    if (go_open(argv[1], &module)) return 3;
    go_gate gate = {.limit = 3};
    go_share_gate(module, &gate);
    printf("threads: %d %d\n", go_context_new(module, -1, &context),
           go_context_new(module, 4096, &context));
    if (go_context_new(module, 3, &context)) return 3;
    int32_t taken = go_take_threads(module, 9);
    printf("taken %d %d", taken >= 1 && taken <= 3, gate.running == (uint32_t)taken);
    go_give_threads(module, taken);
    printf(", given back %u\n", gate.running);
    printf("inputs %d, outputs %d, threads %d, arena %zu\n", go_input_count(module),
           go_output_count(module), go_thread_count(context), go_arena_bytes(context));

    go_tensor given = example(), made = {0}, bad = given;
    bad.dtype = F64;
    show_refusal(context, "dtype", bad);
    bad = given, bad.rank = 2;
    show_refusal(context, "rank", bad);
    bad = given, bad.shape[2] = 47;
    show_refusal(context, "shape", bad);
    bad = given, bad.shape[1] = 0;
    show_refusal(context, "empty", bad);
    bad = given, bad.shape[0] = -3;
    show_refusal(context, "negative", bad);
    bad = given, bad.shape[0] = (int64_t)1 << 40, bad.shape[1] = (int64_t)1 << 40;
    made.data = input;
    printf("huge: %d\n", go_run(context, &bad, &made));

    if (go_output_shapes(context, &given, &made)) return 4;
    printf("output %d: rank %d, %lld %lld %lld\n", made.dtype, made.rank, (long long)made.shape[0],
           (long long)made.shape[1], (long long)made.shape[2]);
    char *memory = malloc(sizeof(float) * (BATCH * LENGTH * OUT + 2));
    memset(memory, 0x5a, sizeof(float) * (BATCH * LENGTH * OUT + 2));
    float *result = (float *)(memory + sizeof(float)); /* not aligned to more than a float */
    made.data = result;
    double *seconds = calloc((size_t)go_step_count(module), sizeof *seconds), total = 0;
    if (go_profile(context, &given, &made, seconds)) return 5;
    for (int i = 0; i < go_step_count(module); i++) total += seconds[i] > 0 ? seconds[i] : -1e9;
    printf("guards %d, arena %d, time %d\n",
           !memcmp(memory, "ZZZZ", 4) && !memcmp(result + BATCH * LENGTH * OUT, "ZZZZ", 4),
           go_arena_bytes(context) > 0, total > 0 && total < 60);
    for (int i = 0; i < BATCH * LENGTH * OUT; i++) printf("y %a\n", (double)result[i]);

    job jobs[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        jobs[i] = (job){module, result, 0};
        pthread_create(&threads[i], NULL, run_often, &jobs[i]);
    }
    int same = 1, forks = 1;
    for (int i = 0; i < 10; i++) forks &= runs_in_child(module, context, result);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL), same &= jobs[i].same;
    printf("threads %d, forks %d, running %u\n", same, forks, gate.running);
    go_context_free(context);
    go_close(module);
    go_context_free(NULL);
    go_close(NULL);
    free(memory);
    free(seconds);
    return 0;
}
