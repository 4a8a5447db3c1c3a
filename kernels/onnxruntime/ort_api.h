/* What is used of the C interface of onnxruntime, as it is since 1.17 (version 17 of the
 * interface).
 *
 * The table of functions grows at its end alone, so its beginning is the same in every later
 * version. What is not called has no name here. */
#ifndef GO_ORT_API_H
#define GO_ORT_API_H

#include <stddef.h>
#include <stdint.h>

enum { ORT_VERSION = 17 };

typedef struct OrtStatus OrtStatus; /* null is success */
typedef struct OrtValue OrtValue;
typedef struct OrtTensorTypeAndShapeInfo OrtTensorTypeAndShapeInfo;
typedef struct OrtSessionOptions OrtSessionOptions;
typedef struct OrtCustomOpDomain OrtCustomOpDomain;
typedef struct OrtKernelInfo OrtKernelInfo;
typedef struct OrtKernelContext OrtKernelContext;
typedef struct OrtShapeInferContext OrtShapeInferContext;
typedef struct OrtOpAttr OrtOpAttr;
typedef struct OrtCustomOp OrtCustomOp;

typedef enum {
    ORT_FAIL = 1,
    ORT_INVALID_ARGUMENT = 2,
    ORT_NO_SUCHFILE = 3,
    ORT_INVALID_GRAPH = 10,
} OrtErrorCode;

enum { ORT_OP_ATTR_STRING = 5 };
enum { ORT_INPUT_OUTPUT_VARIADIC = 2 };

typedef struct OrtApi {
    OrtStatus *(*CreateStatus)(OrtErrorCode code, const char *text);
    void *from_1[25];
    OrtStatus *(*CreateCustomOpDomain)(const char *domain, OrtCustomOpDomain **made);
    OrtStatus *(*CustomOpDomain_Add)(OrtCustomOpDomain *domain, const OrtCustomOp *op);
    OrtStatus *(*AddCustomOpDomain)(OrtSessionOptions *options, OrtCustomOpDomain *domain);
    void *from_29[21];
    OrtStatus *(*IsTensor)(const OrtValue *value, int *is_tensor);
    OrtStatus *(*GetTensorMutableData)(OrtValue *value, void **data);
    void *from_52[5];
    OrtStatus *(*CreateTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo **made);
    OrtStatus *(*SetTensorElementType)(OrtTensorTypeAndShapeInfo *info, int type);
    OrtStatus *(*SetDimensions)(OrtTensorTypeAndShapeInfo *info, const int64_t *dims, size_t count);
    OrtStatus *(*GetTensorElementType)(const OrtTensorTypeAndShapeInfo *info, int *type);
    OrtStatus *(*GetDimensionsCount)(const OrtTensorTypeAndShapeInfo *info, size_t *count);
    OrtStatus *(*GetDimensions)(const OrtTensorTypeAndShapeInfo *info, int64_t *dims, size_t count);
    OrtStatus *(*GetSymbolicDimensions)(const OrtTensorTypeAndShapeInfo *info, const char **names,
                                        size_t count);
    void *from_64[1];
    OrtStatus *(*GetTensorTypeAndShape)(const OrtValue *value, OrtTensorTypeAndShapeInfo **info);
    void *from_66[20];
    OrtStatus *(*KernelInfoGetAttribute_int64)(const OrtKernelInfo *info, const char *name,
                                               int64_t *value);
    OrtStatus *(*KernelInfoGetAttribute_string)(const OrtKernelInfo *info, const char *name,
                                                char *text, size_t *bytes);
    OrtStatus *(*KernelContext_GetInputCount)(const OrtKernelContext *context, size_t *count);
    OrtStatus *(*KernelContext_GetOutputCount)(const OrtKernelContext *context, size_t *count);
    OrtStatus *(*KernelContext_GetInput)(const OrtKernelContext *context, size_t index,
                                         const OrtValue **value);
    OrtStatus *(*KernelContext_GetOutput)(OrtKernelContext *context, size_t index,
                                          const int64_t *dims, size_t rank, OrtValue **value);
    void *from_92[1];
    void (*ReleaseStatus)(OrtStatus *status);
    void *from_94[5];
    void (*ReleaseTensorTypeAndShapeInfo)(OrtTensorTypeAndShapeInfo *info);
    void *from_100[130];
    OrtStatus *(*KernelInfo_GetInputCount)(const OrtKernelInfo *info, size_t *count);
    OrtStatus *(*KernelInfo_GetOutputCount)(const OrtKernelInfo *info, size_t *count);
    void *from_232[6];
    OrtStatus *(*GetSessionConfigEntry)(const OrtSessionOptions *options, const char *key,
                                        char *value, size_t *bytes);
    void *from_239[29];
    OrtStatus *(*ShapeInferContext_GetInputTypeShape)(const OrtShapeInferContext *context,
                                                      size_t index,
                                                      OrtTensorTypeAndShapeInfo **info);
    OrtStatus *(*ShapeInferContext_GetAttribute)(const OrtShapeInferContext *context,
                                                 const char *name, const OrtOpAttr **attribute);
    OrtStatus *(*ShapeInferContext_SetOutputTypeShape)(const OrtShapeInferContext *context,
                                                       size_t index,
                                                       const OrtTensorTypeAndShapeInfo *info);
    OrtStatus *(*SetSymbolicDimensions)(OrtTensorTypeAndShapeInfo *info, const char **names,
                                        size_t count);
    OrtStatus *(*ReadOpAttr)(const OrtOpAttr *attribute, int type, void *data, size_t bytes,
                             size_t *needed);
    void *from_273[1];
    OrtStatus *(*KernelContext_ParallelFor)(const OrtKernelContext *context,
                                            void (*task)(void *argument, size_t index),
                                            size_t count, size_t batches, void *argument);
} OrtApi;

_Static_assert(offsetof(OrtApi, KernelContext_ParallelFor) == 274 * sizeof(void *),
               "no gap is off");

typedef struct OrtApiBase {
    const OrtApi *(*GetApi)(uint32_t version); /* null if the runtime is older */
    const char *(*GetVersionString)(void);
} OrtApiBase;

/* What an op is and does; a function that is null is not asked. A variadic input or output is the
 * last one, with its least number and whether all are of one type. */
struct OrtCustomOp {
    uint32_t version; /* what of this struct is looked at */
    void *(*CreateKernel)(const OrtCustomOp *op, const OrtApi *api, const OrtKernelInfo *info);
    const char *(*GetName)(const OrtCustomOp *op);
    const char *(*GetExecutionProviderType)(const OrtCustomOp *op); /* null for the CPU */
    int (*GetInputType)(const OrtCustomOp *op, size_t index);       /* 0 for any */
    size_t (*GetInputTypeCount)(const OrtCustomOp *op);
    int (*GetOutputType)(const OrtCustomOp *op, size_t index);
    size_t (*GetOutputTypeCount)(const OrtCustomOp *op);
    void (*KernelCompute)(void *kernel, OrtKernelContext *context);
    void (*KernelDestroy)(void *kernel);
    int (*GetInputCharacteristic)(const OrtCustomOp *op, size_t index);
    int (*GetOutputCharacteristic)(const OrtCustomOp *op, size_t index);
    int (*GetInputMemoryType)(const OrtCustomOp *op, size_t index);
    int (*GetVariadicInputMinArity)(const OrtCustomOp *op);
    int (*GetVariadicInputHomogeneity)(const OrtCustomOp *op);
    int (*GetVariadicOutputMinArity)(const OrtCustomOp *op);
    int (*GetVariadicOutputHomogeneity)(const OrtCustomOp *op);
    OrtStatus *(*CreateKernelV2)(const OrtCustomOp *op, const OrtApi *api,
                                 const OrtKernelInfo *info, void **kernel);
    OrtStatus *(*KernelComputeV2)(void *kernel, OrtKernelContext *context);
    OrtStatus *(*InferOutputShapeFn)(const OrtCustomOp *op, OrtShapeInferContext *context);
    int (*GetStartVersion)(const OrtCustomOp *op);
    int (*GetEndVersion)(const OrtCustomOp *op);
};

#endif
