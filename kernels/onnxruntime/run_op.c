/* graphopt::Run: a node of onnxruntime that is a package. Run1, Run2 and so on are the same op: in
 * a file of several nodes each has a name of its own, because a function in plain ONNX belongs to
 * it.
 *
 * Attributes: `package` and `entry` say which (packages.h), `folder` where it lies beside the
 * model, `interface` which graphopt.h its library needs, and `signature` what the node takes and
 * makes (signature.h). Packages are looked for in the folder that the session's entry
 * graphopt.packages names; without it in the folder of this library, then in `folder` below the
 * working directory. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ort_api.h"
#include "packages.h"
#include "signature.h"

enum { TEXT_BYTES = 4096, MOST_ATTRIBUTE = 1 << 20, NAMES = 64, NAME_BYTES = 8 };

typedef struct op_set op_set;

/* The op by one of its names. */
typedef struct {
    OrtCustomOp op; /* first: what the runtime gives back */
    char name[NAME_BYTES];
    const op_set *set;
} run_op;

/* The ops as sessions of one runtime have them that look for packages in one place. */
struct op_set {
    const OrtApi *api;
    OrtCustomOpDomain *domain;
    char *packages; /* where packages are, or null */
    op_set *next;
    run_op ops[NAMES];
};

/* What one call of a node needs, kept for the next one. */
typedef struct slot {
    go_context *context;
    go_tensor *tensors; /* inputs, then outputs */
    void **owned;       /* memory of a call that belongs to no tensor of the runtime, or null */
    struct slot *next;
} slot;

typedef struct {
    const OrtApi *api;
    go_package *package;
    go_signature signature;
    int has_computed_sizes;
    pthread_mutex_t lock;
    slot *idle;
} kernel;

typedef struct {
    const OrtApi *api;
    OrtKernelContext *context;
    OrtStatus *status;
} session_pool;

__attribute__((format(printf, 3, 4))) static OrtStatus *fail(const OrtApi *api, OrtErrorCode code,
                                                             const char *format, ...) {
    char text[TEXT_BYTES] = "graphopt::Run: ";
    const size_t at = strlen(text);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + at, sizeof text - at, format, arguments);
    va_end(arguments);
    return api->CreateStatus(code, text);
}

static OrtStatus *no_memory(const OrtApi *api) { return fail(api, ORT_FAIL, "out of memory"); }

static const char *described(const go_described *port, char *text, size_t bytes) {
    size_t at = (size_t)snprintf(text, bytes, "%s[", go_dtype_name(port->dtype));
    for (int axis = 0; axis < port->rank && at < bytes; axis++)
        at += (size_t)snprintf(text + at, bytes - at, "%s%s", axis ? "," : "", port->dims[axis]);
    if (at < bytes) snprintf(text + at, bytes - at, "]");
    return text;
}

/* ---- A call ---- */

static void free_slot(kernel *k, slot *s) {
    if (s->context) k->package->call.context_free(s->context);
    free(s->tensors);
    free(s->owned);
    free(s);
}

static OrtStatus *new_slot(kernel *k, slot **made) {
    const size_t ports = k->signature.inputs + k->signature.outputs;
    slot *s = calloc(1, sizeof *s);
    if (!s) return no_memory(k->api);
    s->tensors = calloc(ports + 1, sizeof *s->tensors);
    s->owned = calloc(ports + 1, sizeof *s->owned);
    const go_functions *call = &k->package->call;
    if (s->tensors && s->owned &&
        call->context_new_hosted(k->package->module, 0, &s->context) == GO_OK) {
        *made = s;
        return NULL;
    }
    free_slot(k, s);
    return no_memory(k->api);
}

static OrtStatus *take_slot(kernel *k, slot **taken) {
    pthread_mutex_lock(&k->lock);
    slot *s = *taken = k->idle;
    if (s) k->idle = s->next;
    pthread_mutex_unlock(&k->lock);
    return s ? NULL : new_slot(k, taken);
}

static void give_slot(kernel *k, slot *s) {
    for (size_t i = 0; i < k->signature.inputs + k->signature.outputs; i++) {
        free(s->owned[i]);
        s->owned[i] = NULL;
    }
    pthread_mutex_lock(&k->lock);
    s->next = k->idle;
    k->idle = s;
    pthread_mutex_unlock(&k->lock);
}

static size_t bytes_of(const go_tensor *tensor) {
    size_t bytes = go_dtype_bytes(tensor->dtype);
    for (int axis = 0; axis < tensor->rank; axis++) bytes *= (size_t)tensor->shape[axis];
    return bytes;
}

static OrtStatus *read_shape(const kernel *k, const OrtTensorTypeAndShapeInfo *info, size_t index,
                             go_tensor *tensor) {
    const OrtApi *api = k->api;
    const go_described *port = &k->signature.ports[index];
    int type = 0;
    size_t rank = 0;
    OrtStatus *status = api->GetTensorElementType(info, &type);
    if (!status) status = api->GetDimensionsCount(info, &rank);
    if (status) return status;
    tensor->dtype = go_dtype_of_onnx(type);
    tensor->rank = (int32_t)rank;
    char expected[TEXT_BYTES / 4];
    if (tensor->dtype != port->dtype)
        return fail(api, ORT_INVALID_ARGUMENT, "input %zu (%s) has dtype %s, compiled for %s",
                    index, port->name, go_dtype_name(tensor->dtype), go_dtype_name(port->dtype));
    if (tensor->rank != port->rank)
        return fail(api, ORT_INVALID_ARGUMENT, "input %zu (%s) has %zu dimensions, compiled for %s",
                    index, port->name, rank, described(port, expected, sizeof expected));
    return api->GetDimensions(info, tensor->shape, rank);
}

static OrtStatus *read_input(const kernel *k, const OrtKernelContext *context, size_t index,
                             slot *s) {
    const OrtApi *api = k->api;
    go_tensor *tensor = &s->tensors[index];
    const OrtValue *value = NULL;
    OrtTensorTypeAndShapeInfo *info = NULL;
    int is_tensor = 0;
    OrtStatus *status = api->KernelContext_GetInput(context, index, &value);
    if (!status && value) status = api->IsTensor(value, &is_tensor);
    if (status) return status;
    if (!is_tensor)
        return fail(api, ORT_INVALID_ARGUMENT, "input %zu (%s) is no tensor", index,
                    k->signature.ports[index].name);
    if ((status = api->GetTensorTypeAndShape(value, &info))) return status;
    status = read_shape(k, info, index, tensor);
    api->ReleaseTensorTypeAndShapeInfo(info);
    if (!status) status = api->GetTensorMutableData((OrtValue *)value, &tensor->data);
    if (status || (uintptr_t)tensor->data % go_dtype_bytes(tensor->dtype) == 0) return status;
    const size_t bytes = bytes_of(tensor);
    if (!(s->owned[index] = malloc(bytes + 1))) return no_memory(api);
    tensor->data = memcpy(s->owned[index], tensor->data, bytes);
    return NULL;
}

/* Memory of the runtime for an output, null for one that nobody reads. */
static OrtStatus *runtime_memory(const kernel *k, OrtKernelContext *context, size_t output,
                                 const go_tensor *tensor, void **data) {
    OrtValue *value = NULL;
    *data = NULL;
    OrtStatus *status = k->api->KernelContext_GetOutput(context, output, tensor->shape,
                                                        (size_t)tensor->rank, &value);
    return status || !value ? status : k->api->GetTensorMutableData(value, data);
}

/* Outputs have the runtime's memory, or that of this call where a run decides on sizes. */
static OrtStatus *find_memory(const kernel *k, OrtKernelContext *context, slot *s) {
    for (size_t i = 0; i < k->signature.outputs; i++) {
        const size_t index = k->signature.inputs + i;
        go_tensor *tensor = &s->tensors[index];
        tensor->data = NULL;
        OrtStatus *status = NULL;
        if (!k->has_computed_sizes) status = runtime_memory(k, context, i, tensor, &tensor->data);
        if (status) return status;
        if (tensor->data) continue;
        tensor->data = s->owned[index] = malloc(bytes_of(tensor) + 1);
        if (!tensor->data) return no_memory(k->api);
    }
    return NULL;
}

static OrtStatus *hand_over(const kernel *k, OrtKernelContext *context, const slot *s) {
    for (size_t i = 0; i < k->signature.outputs; i++) {
        const go_tensor *tensor = &s->tensors[k->signature.inputs + i];
        void *data = NULL;
        OrtStatus *status = runtime_memory(k, context, i, tensor, &data);
        if (status) return status;
        if (data) memcpy(data, tensor->data, bytes_of(tensor));
    }
    return NULL;
}

static OrtStatus *refusal(const kernel *k, const slot *s) {
    const go_error *error = k->package->call.last_error(s->context);
    const int is_input = error->input >= 0 && (size_t)error->input < k->signature.inputs;
    const OrtErrorCode code = error->code == GO_ERROR_MEMORY || error->code == GO_ERROR_THREADS
                                  ? ORT_FAIL
                                  : ORT_INVALID_ARGUMENT;
    if (!is_input) return fail(k->api, code, "%s", error->text);
    const go_described *port = &k->signature.ports[error->input];
    char expected[TEXT_BYTES / 4];
    return fail(k->api, code, "%s; input %d is %s, compiled for %s", error->text, error->input,
                port->name, described(port, expected, sizeof expected));
}

static void parallel_for(void *pool, void (*task)(void *argument, size_t index), size_t count,
                         void *argument) {
    session_pool *p = pool;
    p->status = p->api->KernelContext_ParallelFor(p->context, task, count, 0, argument);
}

static OrtStatus *run_in(const kernel *k, OrtKernelContext *context, slot *s) {
    const go_functions *call = &k->package->call;
    go_tensor *outputs = s->tensors + k->signature.inputs;
    OrtStatus *status = NULL;
    for (size_t i = 0; i < k->signature.inputs && !status; i++)
        status = read_input(k, context, i, s);
    if (status) return status;
    if (call->output_shapes(s->context, s->tensors, outputs) != GO_OK) return refusal(k, s);
    if ((status = find_memory(k, context, s))) return status;
    session_pool pool = {k->api, context, NULL};
    const go_host host = {parallel_for, &pool};
    const go_code code = call->run_hosted(s->context, s->tensors, outputs, &host);
    if (pool.status) return pool.status;
    if (code != GO_OK) return refusal(k, s);
    return k->has_computed_sizes ? hand_over(k, context, s) : NULL;
}

static OrtStatus *compute(void *state, OrtKernelContext *context) {
    kernel *k = state;
    if (!k || !context) return NULL;
    if (go_package_is_changed(k->package))
        return fail(k->api, ORT_FAIL,
                    "package %s was changed in place while it is open; make the "
                    "session again, and replace a package as a whole",
                    k->package->path);
    slot *s;
    OrtStatus *status = take_slot(k, &s);
    if (status) return status;
    status = run_in(k, context, s);
    give_slot(k, s);
    return status;
}

/* ---- A node ---- */

static void destroy(void *state) {
    kernel *k = state;
    if (!k) return;
    for (slot *s = k->idle, *next; s; s = next) {
        next = s->next;
        free_slot(k, s);
    }
    go_package_close(k->package);
    go_signature_free(&k->signature);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

/* The text of an attribute, to be freed; `otherwise` without one, null without memory. */
static char *attribute(const OrtApi *api, const OrtKernelInfo *info, const char *name,
                       const char *otherwise) {
    size_t bytes = 0;
    OrtStatus *status = api->KernelInfoGetAttribute_string(info, name, NULL, &bytes);
    const int is_there = !status && bytes && bytes <= MOST_ATTRIBUTE;
    if (status) api->ReleaseStatus(status);
    if (!is_there) return strdup(otherwise);
    char *text = calloc(bytes + 1, 1);
    if (text && (status = api->KernelInfoGetAttribute_string(info, name, text, &bytes))) {
        api->ReleaseStatus(status);
        *text = 0;
    }
    return text;
}

static int64_t number(const OrtApi *api, const OrtKernelInfo *info, const char *name) {
    int64_t value = 0;
    OrtStatus *status = api->KernelInfoGetAttribute_int64(info, name, &value);
    if (status) api->ReleaseStatus(status);
    return status ? 0 : value;
}

/* Whether the module in the package is what the node's signature says. */
static OrtStatus *compare(const kernel *k) {
    const go_functions *call = &k->package->call;
    const go_module *module = k->package->module;
    const size_t inputs = (size_t)call->input_count(module);
    const size_t outputs = (size_t)call->output_count(module);
    const go_signature *said = &k->signature;
    if (inputs != said->inputs || outputs != said->outputs)
        return fail(k->api, ORT_INVALID_GRAPH,
                    "package %s takes %zu tensors and makes %zu, the "
                    "node's signature says %zu and %zu",
                    k->package->path, inputs, outputs, said->inputs, said->outputs);
    for (size_t i = 0; i < inputs + outputs; i++) {
        const go_described *port = &said->ports[i];
        const go_port *found =
            i < inputs ? &call->input_ports(module)[i] : &call->output_ports(module)[i - inputs];
        if (found->dtype != port->dtype || found->rank != port->rank)
            return fail(k->api, ORT_INVALID_GRAPH,
                        "%s of package %s is %s of %d dimensions, the "
                        "node's signature says %s of %d",
                        port->name, k->package->path, go_dtype_name(found->dtype), found->rank,
                        go_dtype_name(port->dtype), port->rank);
        if (i < inputs && found->written)
            return fail(k->api, ORT_INVALID_GRAPH,
                        "package %s writes to its input %s, a state, "
                        "which no node of onnxruntime may; run it with graphopt.load",
                        k->package->path, port->name);
    }
    return NULL;
}

static OrtStatus *open_package(const op_set *set, const OrtKernelInfo *info, kernel *k) {
    const OrtApi *api = set->api;
    char *name = attribute(api, info, "package", ""), *entry = attribute(api, info, "entry", "");
    char *beside = attribute(api, info, "folder", "");
    char why[TEXT_BYTES / 2] = "out of memory", own[TEXT_BYTES] = ".";
    go_finding finding = GO_UNUSABLE;
    if (name && entry && beside) {
        Dl_info here;
        if (dladdr((void *)open_package, &here) && here.dli_fname && strrchr(here.dli_fname, '/'))
            snprintf(own, sizeof own, "%.*s", (int)(strrchr(here.dli_fname, '/') - here.dli_fname),
                     here.dli_fname);
        const char *folders[] = {set->packages ? set->packages : own, beside};
        const int looks_beside = !set->packages && *beside && !strchr(beside, '/');
        const go_wanted wanted = {
            .folders = folders,
            .folder_count = looks_beside ? 2 : 1,
            .name = name,
            .entry = entry,
            .interface = number(api, info, "interface"),
        };
        finding = go_package_open(&wanted, &k->package, why, sizeof why);
    }
    free(name);
    free(entry);
    free(beside);
    if (finding == GO_FOUND) return NULL;
    return fail(api, finding == GO_MISSING ? ORT_NO_SUCHFILE : ORT_FAIL, "%s", why);
}

static OrtStatus *make(const op_set *set, const OrtKernelInfo *info, kernel *k) {
    const OrtApi *api = set->api;
    size_t inputs = 0, outputs = 0;
    char *text = attribute(api, info, "signature", "");
    if (!text) return no_memory(api);
    const int is_read = go_signature_read(text, &k->signature);
    OrtStatus *status = NULL;
    if (!is_read)
        status =
            fail(api, ORT_INVALID_GRAPH, "the attribute signature is '%.200s', and none", text);
    free(text);
    if (!status) status = api->KernelInfo_GetInputCount(info, &inputs);
    if (!status) status = api->KernelInfo_GetOutputCount(info, &outputs);
    if (!status && (inputs != k->signature.inputs || outputs != k->signature.outputs))
        status = fail(api, ORT_INVALID_GRAPH,
                      "a node has %zu inputs and %zu outputs, its "
                      "signature says %zu and %zu",
                      inputs, outputs, k->signature.inputs, k->signature.outputs);
    if (!status) status = open_package(set, info, k);
    if (!status) status = compare(k);
    if (!status) k->has_computed_sizes = k->package->call.computed_count(k->package->module) > 0;
    return status;
}

static OrtStatus *create(const OrtCustomOp *self, const OrtApi *api, const OrtKernelInfo *info,
                         void **made) {
    const run_op *op = (const run_op *)self;
    (void)api; /* of the version that the op says, which it has */
    if (!op || !made) return NULL;
    *made = NULL;
    if (!info) return fail(op->set->api, ORT_INVALID_ARGUMENT, "a kernel is made of no node");
    kernel *k = calloc(1, sizeof *k);
    if (!k) return no_memory(op->set->api);
    k->api = op->set->api;
    pthread_mutex_init(&k->lock, NULL);
    OrtStatus *status = make(op->set, info, k);
    if (status)
        destroy(k);
    else
        *made = k;
    return status;
}

/* ---- Shapes, before anything is computed ---- */

/* The signature of a node whose shapes are asked for. */
static OrtStatus *read_signature(const OrtApi *api, const OrtShapeInferContext *context,
                                 go_signature *signature) {
    const OrtOpAttr *attribute = NULL;
    size_t bytes = 0;
    OrtStatus *status = api->ShapeInferContext_GetAttribute(context, "signature", &attribute);
    char *text = status || !attribute ? NULL : calloc(MOST_ATTRIBUTE + 1, 1);
    if (text) status = api->ReadOpAttr(attribute, ORT_OP_ATTR_STRING, text, MOST_ATTRIBUTE, &bytes);
    if (!status && !(text && go_signature_read(text, signature)))
        status = fail(api, ORT_INVALID_GRAPH, "the attribute signature is missing, or none");
    free(text);
    return status;
}

typedef struct {
    int64_t value; /* -1 for one that is not known */
    const char *name;
} extent;

/* What the runtime knows of the first input that has the dim. */
static OrtStatus *known_extent(const OrtApi *api, const go_signature *signature,
                               OrtTensorTypeAndShapeInfo *const *infos, const char *dim,
                               extent *found) {
    *found = (extent){-1, ""};
    for (size_t i = 0; i < signature->inputs; i++) {
        const go_described *port = &signature->ports[i];
        size_t rank = 0;
        OrtStatus *status = infos[i] ? api->GetDimensionsCount(infos[i], &rank) : NULL;
        if (status) return status;
        if (rank != (size_t)port->rank) continue;
        for (int axis = 0; axis < port->rank; axis++) {
            int64_t values[GO_MAX_RANK];
            const char *names[GO_MAX_RANK];
            if (strcmp(port->dims[axis], dim)) continue;
            status = api->GetDimensions(infos[i], values, rank);
            if (!status) status = api->GetSymbolicDimensions(infos[i], names, rank);
            if (!status) *found = (extent){values[axis], names[axis] ? names[axis] : ""};
            return status;
        }
    }
    return NULL;
}

static OrtStatus *infer_output(const OrtApi *api, OrtShapeInferContext *context,
                               const go_signature *signature,
                               OrtTensorTypeAndShapeInfo *const *infos, size_t output) {
    const go_described *port = &signature->ports[signature->inputs + output];
    OrtTensorTypeAndShapeInfo *info = NULL;
    int64_t values[GO_MAX_RANK];
    const char *names[GO_MAX_RANK];
    char unknown[GO_MAX_RANK][sizeof "graphopt_4294967295"];
    OrtStatus *status = api->CreateTensorTypeAndShapeInfo(&info);
    if (!status) status = api->SetTensorElementType(info, go_dtype_to_onnx(port->dtype));
    for (int axis = 0; axis < port->rank && !status; axis++) {
        char *end;
        extent known = {strtoll(port->dims[axis], &end, 10), ""};
        if (*end) status = known_extent(api, signature, infos, port->dims[axis], &known);
        values[axis] = known.value;
        names[axis] = known.name;
        if (known.value < 0 && !*known.name) { /* without a name the runtime takes -1 for a size */
            static atomic_uint count;
            snprintf(unknown[axis], sizeof unknown[axis], "graphopt_%u",
                     atomic_fetch_add(&count, 1));
            names[axis] = unknown[axis];
        }
    }
    const size_t rank = (size_t)port->rank;
    if (!status) status = api->SetDimensions(info, values, rank);
    if (!status) status = api->SetSymbolicDimensions(info, names, rank);
    if (!status) status = api->ShapeInferContext_SetOutputTypeShape(context, output, info);
    if (info) api->ReleaseTensorTypeAndShapeInfo(info);
    return status;
}

static OrtStatus *infer_shapes(const OrtCustomOp *self, OrtShapeInferContext *context) {
    const run_op *op = (const run_op *)self;
    if (!op || !context) return NULL;
    const OrtApi *api = op->set->api;
    go_signature signature;
    OrtStatus *status = read_signature(api, context, &signature);
    if (status) return status;
    OrtTensorTypeAndShapeInfo **infos = calloc(signature.inputs + 1, sizeof *infos);
    if (!infos) status = no_memory(api);
    for (size_t i = 0; i < signature.inputs && !status; i++)
        status = api->ShapeInferContext_GetInputTypeShape(context, i, &infos[i]);
    for (size_t i = 0; i < signature.outputs && !status; i++)
        status = infer_output(api, context, &signature, infos, i);
    free(infos); /* what it points to is the context's */
    go_signature_free(&signature);
    return status;
}

/* ---- The op ---- */

static const char *op_name(const OrtCustomOp *op) {
    return op ? ((const run_op *)op)->name : "Run";
}
static const char *provider(const OrtCustomOp *op) { return (void)op, NULL; }
static int any_type(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, 0; }
static size_t one(const OrtCustomOp *op) { return (void)op, 1; }
static int is_variadic(const OrtCustomOp *op, size_t index) {
    return (void)op, (void)index, ORT_INPUT_OUTPUT_VARIADIC;
}
static int default_memory(const OrtCustomOp *op, size_t index) { return (void)op, (void)index, 0; }
static int none(const OrtCustomOp *op) { return (void)op, 0; }
static int first_version(const OrtCustomOp *op) { return (void)op, 1; }
static int last_version(const OrtCustomOp *op) { return (void)op, INT32_MAX; }

static const OrtCustomOp run_description = {
    .version = ORT_VERSION,
    .GetName = op_name,
    .GetExecutionProviderType = provider,
    .GetInputType = any_type,
    .GetInputTypeCount = one,
    .GetOutputType = any_type,
    .GetOutputTypeCount = one,
    .KernelDestroy = destroy,
    .GetInputCharacteristic = is_variadic,
    .GetOutputCharacteristic = is_variadic,
    .GetInputMemoryType = default_memory,
    .GetVariadicInputMinArity = none,
    .GetVariadicInputHomogeneity = none,
    .GetVariadicOutputMinArity = first_version,
    .GetVariadicOutputHomogeneity = none,
    .CreateKernelV2 = create,
    .KernelComputeV2 = compute,
    .InferOutputShapeFn = infer_shapes,
    .GetStartVersion = first_version,
    .GetEndVersion = last_version,
};

/* The ops of this process, which outlive every session. */
static op_set *registered;
static pthread_mutex_t registering = PTHREAD_MUTEX_INITIALIZER;

static OrtStatus *add_ops(op_set *set) {
    OrtStatus *status = set->api->CreateCustomOpDomain("graphopt", &set->domain);
    for (int i = 0; i < NAMES && !status; i++) {
        run_op *op = &set->ops[i];
        op->op = run_description;
        op->set = set;
        snprintf(op->name, sizeof op->name, i ? "Run%d" : "Run", i);
        status = set->api->CustomOpDomain_Add(set->domain, &op->op);
    }
    return status;
}

/* The ops for a place of packages, which becomes theirs. */
static OrtStatus *ops_for(const OrtApi *api, char *packages, op_set **found) {
    OrtStatus *status = NULL;
    op_set *set = registered;
    while (set && (set->api != api ||
                   strcmp(set->packages ? set->packages : "", packages ? packages : "")))
        set = set->next;
    if (set) {
        free(packages);
    } else if (!(set = calloc(1, sizeof *set))) {
        free(packages);
        status = no_memory(api);
    } else {
        set->api = api;
        set->packages = packages;
        set->next = registered;
        status = add_ops(set);
        if (!status) registered = set; /* a broken one stays, for the runtime may have kept it */
    }
    *found = set;
    return status;
}

__attribute__((visibility("default"))) OrtStatus *RegisterCustomOps(OrtSessionOptions *options,
                                                                    const OrtApiBase *base);

/* What onnxruntime calls for every session that this library is registered with. */
OrtStatus *RegisterCustomOps(OrtSessionOptions *options, const OrtApiBase *base) {
    if (!base) return NULL;
    const OrtApi *api = base->GetApi(ORT_VERSION);
    if (!api) { /* the table begins alike in every version */
        const OrtApi *oldest = base->GetApi(1);
        return oldest ? fail(oldest, ORT_FAIL, "onnxruntime %s is too old; 1.17 or newer is needed",
                             base->GetVersionString())
                      : NULL;
    }
    if (!options) return fail(api, ORT_INVALID_ARGUMENT, "there are no session options");
    size_t bytes = 0;
    char *packages = NULL;
    OrtStatus *status = api->GetSessionConfigEntry(options, "graphopt.packages", NULL, &bytes);
    if (status) { /* there is none */
        api->ReleaseStatus(status);
    } else if (!(packages = calloc(bytes + 1, 1))) {
        return no_memory(api);
    } else if ((status =
                    api->GetSessionConfigEntry(options, "graphopt.packages", packages, &bytes))) {
        free(packages);
        return status;
    }
    op_set *set = NULL;
    pthread_mutex_lock(&registering);
    status = ops_for(api, packages, &set);
    pthread_mutex_unlock(&registering);
    return status ? status : api->AddCustomOpDomain(options, set->domain);
}
