/* What the CPU has, by the names of /proc/cpuinfo. */
#ifndef CPU_FEATURES_H
#define CPU_FEATURES_H

/* " one two three ", to be freed; " " if nothing is known, null without memory. */
char *cpu_features(void);

#endif
