/* What a node says of its inputs and outputs, in text such as
 *
 *     f32[B,T,48] x, i64[B] lengths -> f32[B,T,24] y
 *
 * An extent is a number, the name of a dim, or ? where only a run shows it. */
#ifndef GO_SIGNATURE_H
#define GO_SIGNATURE_H

#include <stddef.h>
#include <stdint.h>

#include "graphopt.h"

enum { GO_NAME_BYTES = 64 };

typedef struct {
    int32_t dtype; /* a go_dtype */
    int32_t rank;
    char dims[GO_MAX_RANK][GO_NAME_BYTES];
    char name[GO_NAME_BYTES];
} go_described;

typedef struct {
    go_described *ports; /* inputs, then outputs */
    size_t inputs, outputs;
} go_signature;

/* Reads a text; returns whether it is one, and there was memory. */
int go_signature_read(const char *text, go_signature *signature);
void go_signature_free(go_signature *signature);

/* The name of a go_dtype, its type in ONNX, and the bytes of an element. */
const char *go_dtype_name(int32_t dtype);
int go_dtype_to_onnx(int32_t dtype);
int32_t go_dtype_of_onnx(int type); /* -1 if graphopt has none */
size_t go_dtype_bytes(int32_t dtype);

#endif
