/* A CUDA driver without a GPU: it takes what Triton's launcher hands over and prints it.
 *
 * STUB_SIZES: bytes of each kernel parameter, separated by commas; nothing is printed without it.
 * STUB_CUDA: what cuDriverGetVersion says. STUB_REFUSES: the error that loading an image ends in.
 * STUB_ATTRIBUTE, STUB_VALUE: a device attribute, and its value.
 */
#include "cuda.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int told(const char *name, int otherwise) { return getenv(name) ? atoi(getenv(name)) : otherwise; }
#define printf(...) (void)(getenv("STUB_SIZES") && printf(__VA_ARGS__))

CUresult cuInit(unsigned int flags) { return CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult code, const char **text) { *text = code == CUDA_ERROR_INVALID_IMAGE ? "device kernel image is invalid" : "stub"; return CUDA_SUCCESS; }
static CUcontext current;
CUresult cuCtxGetCurrent(CUcontext *context) { *context = current; return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext context) { current = context; return CUDA_SUCCESS; }
CUresult cuCtxGetDevice(CUdevice *device) { *device = 0; return CUDA_SUCCESS; }
CUresult cuCtxGetLimit(size_t *value, CUlimit limit) { *value = 0; return CUDA_SUCCESS; }
CUresult cuCtxSetLimit(CUlimit limit, size_t value) { return CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) { *device = 0; return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *version) { *version = told("STUB_CUDA", 13000); return CUDA_SUCCESS; }
CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) { *context = (CUcontext)1; return CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  *value = attribute == told("STUB_ATTRIBUTE", 0)                             ? told("STUB_VALUE", 0)
           : attribute == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN ? 232448
           : attribute == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR        ? 9
           : attribute == CU_DEVICE_ATTRIBUTE_WARP_SIZE                       ? 32
                                                                              : 0;
  return CUDA_SUCCESS;
}
CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  if (!current)
    return CUDA_ERROR_INVALID_CONTEXT;
  printf("image %.3s\n", (const char *)image + 1);
  *module = (CUmodule)2;
  return told("STUB_REFUSES", CUDA_SUCCESS);
}
CUresult cuLaunchKernel(CUfunction function, unsigned int x, unsigned int y, unsigned int z, unsigned int bx,
                        unsigned int by, unsigned int bz, unsigned int shared, CUstream stream, void **params,
                        void **extra) {
  return function == (CUfunction)3 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
CUresult cuCtxSynchronize(void) { return CUDA_SUCCESS; }
CUresult cuModuleUnload(CUmodule module) { return CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  printf("function %s\n", name);
  *function = (CUfunction)3;
  return CUDA_SUCCESS;
}
CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
  *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0;
  return CUDA_SUCCESS;
}
CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) { return CUDA_SUCCESS; }
CUresult cuFuncSetCacheConfig(CUfunction function, CUfunc_cache config) { return CUDA_SUCCESS; }
CUresult cuOccupancyMaxActiveClusters(int *clusters, CUfunction function, const CUlaunchConfig *config) {
  return CUDA_SUCCESS;
}
CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr pointer) { return CUDA_SUCCESS; }
CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status) {
  *status = CU_STREAM_CAPTURE_STATUS_NONE;
  return CUDA_SUCCESS;
}
CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *address,
                                const cuuint64_t *dims, const cuuint64_t *strides, const cuuint32_t *box,
                                const cuuint32_t *steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
  memset(map, 0xAB, sizeof *map);
  printf("map type %d rank %u address %llu dims %llu %llu stride %llu box %u %u swizzle %d fill %d\n", type, rank,
         (unsigned long long)address, (unsigned long long)dims[0], (unsigned long long)dims[1],
         (unsigned long long)strides[0], box[0], box[1], swizzle, fill);
  return CUDA_SUCCESS;
}
CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **params, void **extra) {
  printf("launch grid %u %u %u block %u shared %u stream %llu attributes %u\n", config->gridDimX, config->gridDimY,
         config->gridDimZ, config->blockDimX, config->sharedMemBytes, (unsigned long long)config->hStream,
         config->numAttrs);
  int i = 0;
  for (char *rest = getenv("STUB_SIZES"); *rest; rest += *rest == ',') {
    long size = strtol(rest, &rest, 10);
    printf("param %d ", i);
    for (long j = 0; j < size; j++)
      printf("%02x", ((unsigned char *)params[i])[j]);
    printf("\n");
    i++;
  }
  fflush(stdout);
  return CUDA_SUCCESS;
}
