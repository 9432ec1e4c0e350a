/* A CUDA driver without a GPU: memory is the host's, and a launch is handed to whoever `stub_connect` names.
 *
 * A call that breaks a documented rule returns CUDA_ERROR_INVALID_VALUE, and cuGetErrorString then says which. Comments
 * name the section: of NVIDIA's CUDA Driver API ("Driver API"), or of the CUDA C++ Programming Guide ("Guide").
 *
 * STUB_ERRORS: injected errors, such as "cuLaunchKernelEx:3=2,kernel:5=700": the third call of a function, or the fifth
 * kernel that runs, fails with that code. A kernel's error is reported by the next call that waits or enqueues. "hang"
 * instead of a code: the call, or the next one that waits for the kernel, does not return.
 * STUB_ARCH: compute capability times ten. STUB_CUDA: what cuDriverGetVersion says; before 13000, cubins of ptxas 13
 * are refused. STUB_ATTRIBUTE, STUB_VALUE: a device attribute, and its value. CUDA_VISIBLE_DEVICES: numbers or uuids
 * of the two cards. STUB_MHZ: the SM clock. STUB_MIG: it is a part of a card.
 */
#define _GNU_SOURCE
#include "cuda.h"
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CARDS = 2, HANGS = -1, CHECKED_SHARED = 49152, OPTED_SHARED = 232448 };

typedef struct {
  const void *image;
  char name[512];
  unsigned dynamic; /* shared memory that a launch may ask for */
  int wide;         /* clusters beyond the portable size are allowed */
  int loaded;
} Module;

typedef void (*OnLoad)(Module *, const void *image);
typedef int (*OnLaunch)(Module *, const char *name, const CUlaunchConfig *, void **params);
static OnLoad on_load;
static OnLaunch on_launch;
static CUcontext current;
static int broken, pending;
static char complaint[512];
static struct { char name[64]; int calls; } counted[64];

static int told(const char *name, int otherwise) { return getenv(name) ? atoi(getenv(name)) : otherwise; }

void stub_connect(OnLoad load, OnLaunch launch) {
  on_load = load;
  on_launch = launch;
}
void stub_reset(void) {
  broken = pending = 0;
  current = NULL;
  memset(counted, 0, sizeof counted);
}

int stub_refuse(const char *format, ...) {
  va_list rest;
  va_start(rest, format);
  vsnprintf(complaint, sizeof complaint, format, rest);
  va_end(rest);
  return CUDA_ERROR_INVALID_VALUE;
}
#define REQUIRE(rule, ...) if (!(rule)) return stub_refuse(__VA_ARGS__)

/* Count a call, and return what is injected into it. */
static int injected(const char *call) {
  int i = 0;
  while (counted[i].calls && strcmp(counted[i].name, call)) i++;
  strcpy(counted[i].name, call);
  char wanted[80];
  int length = sprintf(wanted, "%s:%d=", call, ++counted[i].calls);
  const char *found = getenv("STUB_ERRORS") ? strstr(getenv("STUB_ERRORS"), wanted) : NULL;
  return !found ? 0 : found[length] == 'h' ? HANGS : atoi(found + length);
}
/* After these "any further CUDA work will return the same error" (Driver API, "Data types used by CUDA driver",
 * CUresult); of ECC, NVLink and a lost card that is an assumption. */
static int lasts(int code) {
  return code == 46 || code == 214 || code == 220 || code == 226 || code == 999 || code == 700 || code == 702 ||
         code == 710 || (code >= 714 && code <= 719);
}
static int failed(int code) {
  while (code == HANGS) pause();
  if (lasts(code)) broken = code;
  return code;
}
/* What a call that waits or enqueues returns before it does anything: an error of earlier work, or an injected one. */
static int entered(const char *call) {
  int code = injected(call), before = broken ? broken : pending;
  pending = 0;
  return failed(before ? before : code);
}
#define ENTER(call) do { int code = entered(call); if (code) return code; } while (0)

/* A kernel runs now; `code` is the error that it ends in. */
void stub_kernel(int code) {
  int other = injected("kernel");
  if (!pending) pending = other ? other : code;
}

CUresult cuInit(unsigned flags) { return CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int *version) { *version = told("STUB_CUDA", 13000); return CUDA_SUCCESS; }
CUresult cuGetErrorString(CUresult code, const char **text) {
  switch ((int)code) {
  case 1: *text = *complaint ? complaint : "invalid argument"; break;
  case 2: *text = "out of memory"; break;
  case 46: *text = "CUDA-capable device(s) is/are busy or unavailable"; break;
  case 200: *text = "device kernel image is invalid"; break;
  case 214: *text = "uncorrectable ECC error encountered"; break;
  case 220: *text = "uncorrectable NVLink error detected during the execution"; break;
  case 226: *text = "Invalid access of peer GPU memory over nvlink or a hardware error"; break;
  case 700: *text = "an illegal memory access was encountered"; break;
  case 719: *text = "unspecified launch failure"; break;
  case 999: *text = "unknown error"; break;
  default: *text = "an error that the stub has no words for";
  }
  return CUDA_SUCCESS;
}

/* Cards that CUDA_VISIBLE_DEVICES names, up to the first that does not exist (Guide, "CUDA Environment Variables"). */
static int visible(int *cards) {
  const char *names = getenv("CUDA_VISIBLE_DEVICES");
  int count = 0;
  if (!names)
    for (; count < CARDS; count++) cards[count] = count;
  while (names && *names && count < CARDS) {
    int card = -1;
    if (sscanf(names, "GPU-%8d", &card) + sscanf(names, "%d", &card) < 1 || card < 0 || card >= CARDS) break;
    cards[count++] = card;
    names += strcspn(names, ",");
    names += *names == ',';
  }
  return count;
}
CUresult cuDeviceGetCount(int *count) { int cards[CARDS]; *count = visible(cards); return CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice *device, int ordinal) {
  int cards[CARDS];
  if (ordinal < 0 || ordinal >= visible(cards)) return CUDA_ERROR_INVALID_DEVICE;
  *device = cards[ordinal];
  return CUDA_SUCCESS;
}
CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device) {
  int arch = told("STUB_ARCH", 90);
  switch ((int)attribute) {
  case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: *value = arch / 10; break;
  case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: *value = arch % 10; break;
  case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: *value = arch == 90 ? 132 : 148; break;
  case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: *value = 1 << 20; break;
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: *value = OPTED_SHARED; break;
  case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR: *value = OPTED_SHARED + 1024; break;
  case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK: *value = 65536; break;
  case CU_DEVICE_ATTRIBUTE_WARP_SIZE: *value = 32; break;
  case CU_DEVICE_ATTRIBUTE_CLOCK_RATE: *value = 1980000; break;
  case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE: *value = 2619000; break;
  case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH: *value = 5120; break;
  default: *value = 0;
  }
  if (told("STUB_ATTRIBUTE", -1) == (int)attribute) *value = told("STUB_VALUE", 0);
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device) {
  ENTER("cuDevicePrimaryCtxRetain");
  *context = (CUcontext)(size_t)(device + 1);
  return CUDA_SUCCESS;
}
CUresult cuCtxGetCurrent(CUcontext *context) { *context = current; return CUDA_SUCCESS; }
CUresult cuCtxSetCurrent(CUcontext context) { current = context; return CUDA_SUCCESS; }
CUresult cuCtxGetDevice(CUdevice *device) {
  if (!current) return CUDA_ERROR_INVALID_CONTEXT;
  *device = (int)(size_t)current - 1;
  return CUDA_SUCCESS;
}
CUresult cuCtxGetLimit(size_t *value, CUlimit limit) { *value = 0; return CUDA_SUCCESS; }
CUresult cuCtxSetLimit(CUlimit limit, size_t value) { return CUDA_SUCCESS; }
CUresult cuCtxResetPersistingL2Cache(void) {
  ENTER("cuCtxResetPersistingL2Cache");
  return told("STUB_MIG", 0) ? CUDA_ERROR_NOT_SUPPORTED : CUDA_SUCCESS;
}
CUresult cuCtxSynchronize(void) { ENTER("cuCtxSynchronize"); return CUDA_SUCCESS; }
CUresult cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status) {
  *status = CU_STREAM_CAPTURE_STATUS_NONE;
  return CUDA_SUCCESS;
}
CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr pointer) {
  *(CUdeviceptr *)data = pointer; /* Triton asks for CU_POINTER_ATTRIBUTE_DEVICE_POINTER only */
  return CUDA_SUCCESS;
}

CUresult cuModuleLoadData(CUmodule *module, const void *image) {
  ENTER("cuModuleLoadData");
  if (!current) return CUDA_ERROR_INVALID_CONTEXT;
  if (memcmp(image, "\177ELF", 4)) return CUDA_ERROR_INVALID_IMAGE;
  /* Cubins of ptxas 13.4 have this section, those of 12.9 do not; the names of sections come first in both. */
  if (told("STUB_CUDA", 13000) < 13000 && memmem((const char *)image + 64, 512, ".note.nv.cuinfo", 15))
    return CUDA_ERROR_INVALID_IMAGE;
  Module *made = calloc(1, sizeof *made); /* never freed: its launches stay recognisable */
  *made = (Module){.image = image, .dynamic = CHECKED_SHARED, .loaded = 1};
  if (on_load) on_load(made, image);
  *module = (CUmodule)made;
  return CUDA_SUCCESS;
}
CUresult cuModuleUnload(CUmodule module) { ((Module *)module)->loaded = 0; return CUDA_SUCCESS; }
CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name) {
  strncpy(((Module *)module)->name, name, sizeof((Module *)module)->name - 1);
  *function = (CUfunction)module; /* Triton's modules have one kernel each */
  return CUDA_SUCCESS;
}
CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function) {
  *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0;
  return CUDA_SUCCESS;
}
/* Driver API, "Execution Control", cuFuncSetAttribute */
CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
  Module *set = (Module *)function;
  switch ((int)attribute) {
  case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
    /* "The sum of this value and the function attribute CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES cannot exceed the device
     * attribute CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN." */
    REQUIRE(value >= 0 && value <= OPTED_SHARED, "%d bytes of dynamic shared memory of %d", value, OPTED_SHARED);
    set->dynamic = value;
    return CUDA_SUCCESS;
  case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED: set->wide = value; return CUDA_SUCCESS;
  default: return stub_refuse("function attribute %d", attribute); /* among them those of newer drivers */
  }
}
CUresult cuFuncSetCacheConfig(CUfunction function, CUfunc_cache config) { return CUDA_SUCCESS; }
CUresult cuOccupancyMaxActiveClusters(int *clusters, CUfunction function, const CUlaunchConfig *config) {
  *clusters = 1;
  return CUDA_SUCCESS;
}

/* What `evaluator/cuda/clock.py` asks: every SM has counted STUB_MHZ million cycles a second. */
static int tell_clock(uint64_t *rows, unsigned sms) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  uint64_t ns = now.tv_sec * 1000000000ull + now.tv_nsec;
  for (unsigned i = 0; i < sms; i++, rows += 3) rows[0] = i, rows[1] = ns / 1000 * told("STUB_MHZ", 1600), rows[2] = ns;
  return CUDA_SUCCESS;
}

static int launch(const CUlaunchConfig *asked, Module *module, void **params) {
  if (!current) return CUDA_ERROR_INVALID_CONTEXT;
  if (!module->loaded) return CUDA_ERROR_INVALID_HANDLE;
  unsigned x = asked->gridDimX, y = asked->gridDimY, z = asked->gridDimZ;
  unsigned bx = asked->blockDimX, by = asked->blockDimY, bz = asked->blockDimZ;
  /* Guide, "Compute Capabilities", table "Technical Specifications per Compute Capability" */
  REQUIRE(x && y && z && x < 1u << 31 && y < 1u << 16 && z < 1u << 16, "a grid of %u x %u x %u blocks", x, y, z);
  REQUIRE(bx && by && bz && bx <= 1024 && by <= 1024 && bz <= 64 && bx * by * bz <= 1024,
          "a block of %u x %u x %u threads", bx, by, bz);
  /* Guide, "Shared Memory" of compute capability 9.0: beyond 48 KiB,
   * CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES comes first */
  REQUIRE(asked->sharedMemBytes <= module->dynamic, "%u bytes of shared memory where %u are allowed",
          asked->sharedMemBytes, module->dynamic);
  for (unsigned i = 0; i < asked->numAttrs; i++) {
    const CUlaunchAttributeValue *value = &asked->attrs[i].value;
    switch ((int)asked->attrs[i].id) {
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION: {
      /* Driver API, "Data types used by CUDA driver", CUlaunchAttributeValue.clusterDim: the grid is a multiple of it.
       * CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED: "The portable cluster size for sm_90 is 8 blocks per
       * cluster"; Triton's driver.c allows 16 with it. */
      unsigned cx = value->clusterDim.x, cy = value->clusterDim.y, cz = value->clusterDim.z;
      REQUIRE(cx && cy && cz && x % cx == 0 && y % cy == 0 && z % cz == 0,
              "clusters of %u x %u x %u blocks in this grid", cx, cy, cz);
      if (cx * cy * cz > (module->wide ? 16 : 8)) return CUDA_ERROR_INVALID_CLUSTER_SIZE;
      break;
    }
    case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
    case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION: break;
    default: return stub_refuse("launch attribute %d", asked->attrs[i].id);
    }
  }
  if (!strcmp(module->name, "sm_clock")) return tell_clock(*(uint64_t **)params[0], x);
  return on_launch && params ? on_launch(module, module->name, asked, params) : CUDA_SUCCESS;
}
CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **params, void **extra) {
  ENTER("cuLaunchKernelEx");
  return launch(config, (Module *)function, params);
}
CUresult cuLaunchKernel(CUfunction function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
                        unsigned shared, CUstream stream, void **params, void **extra) {
  ENTER("cuLaunchKernel");
  CUlaunchConfig config = {x, y, z, bx, by, bz, shared, stream, NULL, 0};
  return launch(&config, (Module *)function, params);
}

/* What a tensor map says, in our own encoding: NVIDIA's is not documented. Triton changes a bit of the second word. */
typedef struct {
  unsigned mark;
  unsigned char type, rank, swizzle, fill;
  unsigned long long unused, address, dims[5], strides[4];
  unsigned short box[5];
} Encoded;

/* Driver API, "Tensor Map Object Management", cuTensorMapEncodeTiled: every rule is one of its description's. */
CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *address,
                                const cuuint64_t *dims, const cuuint64_t *strides, const cuuint32_t *box,
                                const cuuint32_t *steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
  static const unsigned bytes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4}; /* CUtensorMapDataType in its order */
  static const unsigned spans[] = {0, 32, 64, 128, 128, 128, 128};         /* CUtensorMapSwizzle in its order */
  ENTER("cuTensorMapEncodeTiled");
  unsigned apart = interleave == CU_TENSOR_MAP_INTERLEAVE_32B ? 32 : 16;
  REQUIRE((size_t)map % 64 == 0, "tensorMap is not aligned to 64 bytes");
  REQUIRE((unsigned)type < sizeof bytes / sizeof *bytes, "tensorDataType %d, which the stub does not know", type);
  REQUIRE(rank >= (interleave ? 3 : 1) && rank <= 5, "tensorRank %u", rank);
  REQUIRE((size_t)address % apart == 0, "globalAddress is not aligned to %u bytes", apart);
  for (unsigned i = 0; i < rank; i++) {
    REQUIRE(dims[i] && dims[i] <= 1ull << 32, "globalDim[%u] is %llu", i, (unsigned long long)dims[i]);
    REQUIRE(box[i] && box[i] <= 256, "boxDim[%u] is %u", i, box[i]);
    REQUIRE((!i && !interleave) || (steps[i] && steps[i] <= 8), "elementStrides[%u] is %u", i, steps[i]);
  }
  for (unsigned i = 0; i + 1 < rank; i++)
    REQUIRE(strides[i] % apart == 0 && strides[i] < 1ull << 40, "globalStrides[%u] is %llu bytes", i,
            (unsigned long long)strides[i]);
  unsigned inner = box[0] * bytes[type];
  REQUIRE(interleave || inner % 16 == 0, "boxDim[0] takes %u bytes, no multiple of 16", inner);
  REQUIRE(interleave || !swizzle || inner <= spans[swizzle], "boxDim[0] takes %u bytes, swizzled by %u", inner,
          spans[swizzle]);
  REQUIRE(interleave != CU_TENSOR_MAP_INTERLEAVE_32B || swizzle == CU_TENSOR_MAP_SWIZZLE_32B,
          "interleaved by 32 bytes, not so swizzled");
  REQUIRE(!fill || type >= CU_TENSOR_MAP_DATA_TYPE_FLOAT16, "oobFill with NaN of tensorDataType %d", type);
  Encoded made = {0x4D41504D, type, rank, swizzle, fill, .address = (size_t)address};
  for (unsigned i = 0; i < rank; i++) {
    made.dims[i] = dims[i];
    made.box[i] = box[i];
    if (i + 1 < rank) made.strides[i] = strides[i];
  }
  memset(map, 0, sizeof *map);
  memcpy(map, &made, sizeof made);
  return CUDA_SUCCESS;
}

CUresult cuDeviceGetName(char *name, int length, CUdevice device) {
  snprintf(name, length, "Stub %s%s", told("STUB_ARCH", 90) == 90 ? "H100" : "B200", device ? " 1" : "");
  return CUDA_SUCCESS;
}
