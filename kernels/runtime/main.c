/* Runs a generated module on files, for emulators and for a first look without Python.
 *
 *     program weights.bin inputs.bin outputs.bin [state]...
 *
 * A tensor in a file is int32 dtype, int32 rank, int64 shape[GO_MAX_RANK], then its elements.
 * A state is the number of an input that the module writes to; behind the outputs comes what
 * the run made of it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "graphopt.h"

static const size_t item_bytes[] = {4, 2, 8, 1, 1, 1, 2, 4, 8, 2}; /* by go_dtype */
enum { ITEM_TYPES = sizeof item_bytes / sizeof *item_bytes };

static size_t tensor_bytes(const go_tensor *tensor) {
    size_t bytes = item_bytes[tensor->dtype];
    for (int a = 0; a < tensor->rank; a++) bytes *= (size_t)tensor->shape[a];
    return bytes;
}

static int fail(const char *what, const char *which) {
    fprintf(stderr, "%s: %s\n", what, which);
    return 1;
}

static int read_tensor(FILE *file, go_tensor *tensor) {
    if (fread(&tensor->dtype, 4, 1, file) != 1 || fread(&tensor->rank, 4, 1, file) != 1 ||
        fread(tensor->shape, sizeof tensor->shape, 1, file) != 1)
        return 1;
    if (tensor->dtype < 0 || tensor->dtype >= ITEM_TYPES || tensor->rank < 0 ||
        tensor->rank > GO_MAX_RANK)
        return 1;
    size_t bytes = tensor_bytes(tensor);
    tensor->data = malloc(bytes ? bytes : 1);
    return !tensor->data || fread(tensor->data, 1, bytes, file) != bytes;
}

static void free_tensors(go_tensor *tensors, int count) {
    for (int i = 0; i < count; i++) free(tensors[i].data);
    free(tensors);
}

static int write_tensor(FILE *file, const go_tensor *tensor) {
    size_t bytes = tensor_bytes(tensor);
    return fwrite(&tensor->dtype, 4, 1, file) != 1 || fwrite(&tensor->rank, 4, 1, file) != 1 ||
           fwrite(tensor->shape, sizeof tensor->shape, 1, file) != 1 ||
           fwrite(tensor->data, 1, bytes, file) != bytes;
}

/* The error on one line: "go_error", the fields of go_error as numbers, its text. */
static int refused(const go_context *context) {
    const go_error *e = go_last_error(context);
    fprintf(stderr, "go_error %d %d %d %lld %lld %s\n", (int)e->code, (int)e->input, (int)e->axis,
            (long long)e->expected, (long long)e->got, e->text);
    return 1;
}

/* Opens the weights; an error of the level is one of go_error. */
static int open_module(const char *weights, go_module **module) {
    const go_code code = go_open(weights, module);
    if (code == GO_ERROR_LEVEL)
        fprintf(stderr, "go_error %d -1 -1 0 0 %s: %s\n", (int)code, go_level(),
                go_level_refusal());
    else if (code)
        fail("cannot open the weights", weights);
    return code != GO_OK;
}

int main(int argc, char **argv) {
    if (argc < 4) return fail("usage", "program weights.bin inputs.bin outputs.bin [state]...");
    go_module *module;
    go_context *context;
    if (open_module(argv[1], &module)) return 1;
    if (go_context_new(module, 0, &context)) return fail("cannot start", "threads");
    int inputs = go_input_count(module), outputs = go_output_count(module);
    go_tensor *in = calloc((size_t)inputs + 1, sizeof *in);
    go_tensor *out = calloc((size_t)outputs + 1, sizeof *out);
    if (!in || !out) return fail("no memory for", "tensors");
    FILE *given = fopen(argv[2], "rb");
    if (!given) return fail("cannot read", argv[2]);
    for (int i = 0; i < inputs; i++)
        if (read_tensor(given, &in[i])) return fail("truncated", argv[2]);
    fclose(given);
    if (go_output_shapes(context, in, out)) return refused(context);
    for (int i = 0; i < outputs; i++)
        if (!(out[i].data = malloc(tensor_bytes(&out[i]) + 1))) return fail("no memory for", "it");
    if (go_run(context, in, out)) return refused(context);
    FILE *made = fopen(argv[3], "wb");
    if (!made) return fail("cannot write", argv[3]);
    for (int i = 0; i < outputs; i++)
        if (write_tensor(made, &out[i])) return fail("cannot write", argv[3]);
    for (int i = 4; i < argc; i++) {
        int state = atoi(argv[i]);
        if (state < 0 || state >= inputs) return fail("no such input", argv[i]);
        if (write_tensor(made, &in[state])) return fail("cannot write", argv[3]);
    }
    if (fclose(made)) return fail("cannot write", argv[3]);
    free_tensors(in, inputs);
    free_tensors(out, outputs);
    go_context_free(context);
    go_close(module);
    return 0;
}
