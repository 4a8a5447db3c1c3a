/* Runs take threads from a gate and give them back. */
#ifndef GO_GATE_H
#define GO_GATE_H

#include "graphopt.h"

/* Sets the limit of a gate that has none. */
void go_gate_open(go_gate *gate);

/* Waits until `threads` threads, or the limit if that is less, are free and it is
 * the caller's turn. Returns how many there are, for go_gate_leave. */
int go_gate_enter(go_gate *gate, int threads);
void go_gate_leave(go_gate *gate, int threads);

#endif
