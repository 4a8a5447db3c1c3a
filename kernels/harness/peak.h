/* Loops of one instruction, or of one sequence of instructions, on independent
 * accumulators: what a core can do at best. */
#ifndef GO_PEAK_H
#define GO_PEAK_H

#include <stddef.h>

#include "go_team.h"

/* Tasks of `steps` rounds; a round is `macs` multiply-accumulates of the loop. */
typedef struct {
    size_t tasks, steps;
} go_peak_args;

typedef struct {
    const char *name; /* peak_<unit>_<sequence>; unit: f32, bf16 or int8 */
    void (*loop)(go_team *team, const go_peak_args *args);
    size_t macs;
} go_peak_loop;

/* Ends with a null name. */
extern const go_peak_loop go_peak_loops[];

/* Memory to read once, in runs of GO_READ_RUN bytes; what remains is left out. */
typedef struct {
    const void *src;
    size_t bytes;
} go_read_args;

enum { GO_READ_RUN = 256 * 1024 };

/* Does nothing but read. */
void go_peak_read(go_team *team, const go_read_args *args);

/* Additions of a register, each of which waits a cycle for the one before, on one thread. */
typedef struct {
    size_t additions;
} go_count_args;

enum { GO_COUNT_ROUND = 16 };

void go_peak_count(go_team *team, const go_count_args *args);

#endif
