/* Matrices of floats in .npy files (format 1.0 to 3.0 of numpy.lib.format). */
#ifndef NPY_H
#define NPY_H

#include <stddef.h>

/* Reads a little-endian f32 matrix in C order. Returns its elements, to be freed, or null if the
 * file is none. */
float *npy_read(const char *path, size_t *rows, size_t *columns);

#endif
