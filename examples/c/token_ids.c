/* Recognizes speech with a package of graphopt compile funasr, without Python:
 *
 *     token_ids asr.gopt/asr features.npy [threads]
 *
 * features.npy holds the normalized features of one utterance, f32[frames, width]; the token ids
 * go to standard output, the ISA level that was chosen to standard error. */
#include <stdio.h>
#include <stdlib.h>

#include "npy.h"
#include "package.h"

enum { F32 = 0, I32 = 7, I64 = 8 }; /* of go_dtype */
enum { MOST_OUTPUTS = 8 };

/* Prints the ids of one utterance. Its outputs are ids i64[1, N] and counts i32[1]; N is known
 * when the run has ended, so the memory is for the largest that it can be. What comes behind them
 * tells times, in elements of at most eight bytes as the ids. */
static int recognize(const package *asr, go_context *context, const go_tensor *inputs) {
    go_tensor outputs[MOST_OUTPUTS];
    if (asr->call.output_shapes(context, inputs, outputs)) return 1;
    if (outputs[0].dtype != I64 || outputs[1].dtype != I32) return 1;
    int failed = 0, count = asr->call.output_count(asr->module);
    for (int i = 0; i < count; i++) {
        size_t elements = 1;
        for (int axis = 0; axis < outputs[i].rank; axis++)
            elements *= (size_t)outputs[i].shape[axis];
        outputs[i].data = calloc(elements + 1, sizeof(int64_t));
        failed |= !outputs[i].data;
    }
    failed = failed || asr->call.run(context, inputs, outputs);
    const int64_t *ids = outputs[0].data;
    int32_t tokens = failed ? 0 : *(const int32_t *)outputs[1].data;
    for (int32_t i = 0; i < tokens; i++)
        printf("%lld%c", (long long)ids[i], i + 1 < tokens ? ' ' : '\n');
    for (int i = 0; i < count; i++) free(outputs[i].data);
    return failed;
}

int main(int argc, char **argv) {
    if (argc < 3 || argc > 4) {
        fprintf(stderr, "usage: %s package features.npy [threads]\n", argv[0]);
        return 2;
    }
    package asr;
    if (package_open(argv[1], &asr)) return 1;
    fprintf(stderr, "level %s\n", asr.level);
    size_t frames, width;
    float *features = npy_read(argv[2], &frames, &width);
    if (!features) {
        fprintf(stderr, "no f32 matrix: %s\n", argv[2]);
        return 1;
    }
    int outputs = asr.call.output_count(asr.module);
    if (asr.call.input_count(asr.module) != 2 || outputs < 2 || outputs > MOST_OUTPUTS) {
        fprintf(stderr, "no recognizer: %s\n", argv[1]);
        return 1;
    }
    go_context *context;
    if (asr.call.context_new(asr.module, argc > 3 ? atoi(argv[3]) : 0, &context)) {
        fprintf(stderr, "cannot start threads\n");
        return 1;
    }
    int32_t length = (int32_t)frames;
    const go_tensor inputs[] = {
        {.data = features, .dtype = F32, .rank = 3, .shape = {1, (int64_t)frames, (int64_t)width}},
        {.data = &length, .dtype = I32, .rank = 1, .shape = {1}},
    };
    int failed = recognize(&asr, context, inputs);
    if (failed) fprintf(stderr, "refused: %s\n", asr.call.last_error(context)->text);
    asr.call.context_free(context);
    asr.call.close(asr.module);
    free(features);
    return failed;
}
