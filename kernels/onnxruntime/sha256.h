/* Digests of files (FIPS 180-4). */
#ifndef GO_SHA256_H
#define GO_SHA256_H

#include <stddef.h>

enum { GO_SHA256_TEXT = 65 };

/* The digest in 64 lower-case hexadecimal digits and a zero. */
void go_sha256(const void *data, size_t bytes, char text[GO_SHA256_TEXT]);

#endif
