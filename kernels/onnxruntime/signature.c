#include "signature.h"

#include <stdlib.h>
#include <string.h>

#include "go_kernel.h"

static const struct {
    const char *name;
    int onnx; /* onnx.TensorProto.DataType */
    size_t bytes;
} dtypes[] = {
    [GO_F32] = {"f32", 1, 4},   [GO_BF16] = {"bf16", 16, 2}, [GO_F64] = {"f64", 11, 8},
    [GO_BOOL] = {"bool", 9, 1}, [GO_U8] = {"u8", 2, 1},      [GO_I8] = {"i8", 3, 1},
    [GO_I16] = {"i16", 5, 2},   [GO_I32] = {"i32", 6, 4},    [GO_I64] = {"i64", 7, 8},
    [GO_F16] = {"f16", 10, 2},
};
enum { DTYPES = sizeof dtypes / sizeof *dtypes };

const char *go_dtype_name(int32_t dtype) {
    return dtype >= 0 && dtype < DTYPES ? dtypes[dtype].name : "an element type of its own";
}
int go_dtype_to_onnx(int32_t dtype) { return dtypes[dtype].onnx; }
size_t go_dtype_bytes(int32_t dtype) { return dtypes[dtype].bytes; }

int32_t go_dtype_of_onnx(int type) {
    for (int32_t dtype = 0; dtype < DTYPES; dtype++)
        if (dtypes[dtype].onnx == type) return dtype;
    return -1;
}

/* The characters up to one of `ends`, which is left; whether they fit and are some. */
static int take(const char **at, const char *ends, char word[GO_NAME_BYTES]) {
    const size_t length = strcspn(*at, ends);
    if (!length || length >= GO_NAME_BYTES) return 0;
    memcpy(word, *at, length);
    word[length] = 0;
    *at += length;
    return 1;
}

static int skip(const char **at, const char *expected) {
    const size_t length = strlen(expected);
    if (strncmp(*at, expected, length)) return 0;
    *at += length;
    return 1;
}

static int read_port(const char **at, go_described *port) {
    char dtype[GO_NAME_BYTES];
    if (!take(at, "[", dtype) || !skip(at, "[")) return 0;
    for (port->dtype = 0; port->dtype < DTYPES; port->dtype++)
        if (!strcmp(dtypes[port->dtype].name, dtype)) break;
    if (port->dtype == DTYPES) return 0;
    if (!skip(at, "]")) {
        do {
            if (port->rank == GO_MAX_RANK || !take(at, ",]", port->dims[port->rank++])) return 0;
        } while (skip(at, ","));
        if (!skip(at, "]")) return 0;
    }
    return skip(at, " ") && take(at, ", ", port->name);
}

static size_t count_of(const char *text, char wanted) {
    size_t count = 0;
    for (; *text; text++) count += *text == wanted;
    return count;
}

int go_signature_read(const char *text, go_signature *signature) {
    const char *at = text;
    const size_t most = count_of(text, '[');
    *signature = (go_signature){.ports = calloc(most + 1, sizeof(go_described))};
    go_described *port = signature->ports;
    if (!port) return 0;
    int is_read = 1;
    while (is_read && *at && strncmp(at, "->", 2)) {
        is_read = read_port(&at, port++) && (skip(&at, ", ") || skip(&at, " "));
        signature->inputs++;
    }
    is_read = is_read && skip(&at, "->");
    while (is_read && *at) {
        is_read = skip(&at, signature->outputs ? ", " : " ") && read_port(&at, port++);
        signature->outputs++;
    }
    if (!is_read) go_signature_free(signature);
    return is_read;
}

void go_signature_free(go_signature *signature) {
    free(signature->ports);
    *signature = (go_signature){0};
}
