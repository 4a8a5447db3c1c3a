/* What harness/timer.c times. */
#ifndef GO_TIMER_H
#define GO_TIMER_H

#include "go_team.h"

typedef void go_kernel_fn(go_team *team, const void *args);

/* One kernel and its arguments. */
typedef struct {
    go_kernel_fn *kernel;
    const void *args;
} go_call;

#endif
