/* The ISA level of a library: its name, and its start in a process. */
#include <pthread.h>

#include "graphopt.h"
#include "start.h"

#define TEXT_OF(x) #x
#define LEVEL_NAME(isa) TEXT_OF(isa)

static pthread_once_t once = PTHREAD_ONCE_INIT;
static const char *refusal;

static void start(void) { refusal = go_start_level(); }

const char *go_level(void) { return LEVEL_NAME(GO_ISA); }

const char *go_level_refusal(void) {
    pthread_once(&once, start);
    return refusal;
}
