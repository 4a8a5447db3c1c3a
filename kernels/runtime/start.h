/* What a process does before the kernels of a level run in it. */
#ifndef GO_START_H
#define GO_START_H

/* Defined by the file that the level's row names (kernels/registry.py): asks the system for what
 * the level's instructions need beyond a CPU that has them, such as room for more registers.
 * Called once for each library of the level, before its first module is open and hence before
 * any of its threads is there; doing it again for the next library must be harmless. Returns
 * null, or why the level cannot run in this process. */
const char *go_start_level(void);

#endif
