/* Packages that are open in this process: found by name, checked, and mapped once for all that
 * use them. */
#ifndef GO_PACKAGES_H
#define GO_PACKAGES_H

#include "graphopt.h"

/* What is called of graphopt.h in the library of a package. */
typedef struct {
    int32_t (*abi_version)(void);
    const char *(*level_refusal)(void);
    go_code (*open)(const char *weights_path, go_module **module);
    void (*close)(go_module *module);
    const go_port *(*input_ports)(const go_module *module);
    const go_port *(*output_ports)(const go_module *module);
    int32_t (*input_count)(const go_module *module);
    int32_t (*output_count)(const go_module *module);
    int32_t (*computed_count)(const go_module *module);
    go_code (*context_new_hosted)(go_module *module, int32_t threads, go_context **context);
    void (*context_free)(go_context *context);
    go_code (*output_shapes)(go_context *context, const go_tensor *inputs, go_tensor *outputs);
    go_code (*run_hosted)(go_context *context, const go_tensor *inputs, go_tensor *outputs,
                          const go_host *host);
    const go_error *(*last_error)(const go_context *context);
} go_functions;

typedef struct go_package go_package;
struct go_package {
    go_functions call;
    go_module *module;
    char *path;
    /* The rest is for packages.c. */
    char *sums;
    void *library;
    int library_file, weights_file;
    int64_t weights_state[3];
    int users;
    go_package *next;
};

/* Which package: a folder by its path, or by a name as one of `folders`, which may hold it for
 * several targets as <name>-<architecture>-<target>. Of those, the one with the most capable
 * library that this CPU runs is taken, from the first folder that has one. */
typedef struct {
    const char *const *folders;
    size_t folder_count;
    const char *name;
    const char *entry; /* folder in the package that holds the module; empty for the package */
    int64_t interface; /* of graphopt.h that its library must have at least */
} go_wanted;

typedef enum { GO_FOUND, GO_MISSING, GO_UNUSABLE } go_finding;

/* Opens a package after checking that the library and the weights are those of its SHA256SUMS;
 * what is not found or cannot be used is said in `why`. */
go_finding go_package_open(const go_wanted *wanted, go_package **package, char *why, size_t bytes);

/* Ends what go_package_open began; the last user closes the package. */
void go_package_close(go_package *package);

/* Whether somebody wrote to the weights since they were checked. */
int go_package_is_changed(const go_package *package);

#endif
