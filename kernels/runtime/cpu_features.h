/* What the CPU has, by the names of /proc/cpuinfo. */
#ifndef GO_CPU_FEATURES_H
#define GO_CPU_FEATURES_H

/* " one two three ", to be freed; " " if nothing is known, null without memory. */
char *go_cpu_features(void);

#endif
