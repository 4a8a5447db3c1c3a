#include "npy.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST_HEADER = 1 << 16 };

/* The text between the first bytes and the elements, to be freed. */
static char *read_header(FILE *file) {
    unsigned char start[8], length[4] = {0};
    if (fread(start, 1, 8, file) != 8 || memcmp(start, "\x93NUMPY", 6)) return NULL;
    size_t digits = start[6] == 1 ? 2 : 4;
    if (fread(length, 1, digits, file) != digits) return NULL;
    uint32_t bytes = length[0] | length[1] << 8 | length[2] << 16 | (uint32_t)length[3] << 24;
    char *text = bytes <= LARGEST_HEADER ? calloc(bytes + 1, 1) : NULL;
    if (text && fread(text, 1, bytes, file) == bytes) return text;
    free(text);
    return NULL;
}

static int parse(const char *header, size_t *rows, size_t *columns) {
    const char *shape = strstr(header, "'shape': (");
    int end = 0; /* where a shape of two axes ends */
    return shape && strstr(header, "'descr': '<f4'") && strstr(header, "'fortran_order': False") &&
           sscanf(shape, "'shape': (%zu, %zu)%n", rows, columns, &end) == 2 && end && *columns &&
           *rows <= SIZE_MAX / sizeof(float) / *columns;
}

float *npy_read(const char *path, size_t *rows, size_t *columns) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    char *header = read_header(file);
    float *elements = NULL;
    if (header && parse(header, rows, columns)) {
        size_t count = *rows * *columns;
        elements = malloc(count * sizeof(float) + 1);
        if (elements && fread(elements, sizeof(float), count, file) != count) {
            free(elements);
            elements = NULL;
        }
    }
    free(header);
    fclose(file);
    return elements;
}
