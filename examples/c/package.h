/* A graphopt package without Python: its functions and its weights, mapped. */
#ifndef PACKAGE_H
#define PACKAGE_H

#include "graphopt.h"

/* What this program calls of graphopt.h. */
typedef struct {
    int32_t (*abi_version)(void);
    const char *(*level_refusal)(void);
    go_code (*open)(const char *weights_path, go_module **module);
    void (*close)(go_module *module);
    int32_t (*input_count)(const go_module *module);
    int32_t (*output_count)(const go_module *module);
    go_code (*context_new)(go_module *module, int32_t threads, go_context **context);
    void (*context_free)(go_context *context);
    go_code (*output_shapes)(go_context *context, const go_tensor *inputs, go_tensor *outputs);
    go_code (*run)(go_context *context, const go_tensor *inputs, go_tensor *outputs);
    const go_error *(*last_error)(const go_context *context);
} package_functions;

typedef struct {
    package_functions call;
    go_module *module;
    char level[64]; /* ISA level that was chosen */
} package;

/* Loads the most capable library of the package in `folder` that this CPU runs, and maps the
 * weights. Returns 0, or 1 after printing why not. */
int package_open(const char *folder, package *opened);

#endif
