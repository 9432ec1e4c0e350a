/* NVML without a GPU: of one card and its part, and of the two of libcuda.c. What NVML_STUB_FAILS names fails. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { unsigned int pid; unsigned long long memory; unsigned int instances[2]; } Process;
typedef struct { void *device; unsigned long long type, data; unsigned int instances[2]; } Event;
static int watched;

static int result(const char *name) {
  const char *fails = getenv("NVML_STUB_FAILS");
  return fails && strstr(fails, name) ? 3 /* NVML_ERROR_NOT_SUPPORTED */ : 0;
}
int nvmlInitWithFlags(unsigned int flags) { return result("init"); }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device) {
  *device = (void *)0x7f0000000001;
  return result("index");
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
  *device = (void *)(strncmp(uuid, "MIG-", 4) ? 0x7f0000000002 : 0x7f0000000003);
  const char *stub = getenv("STUB_MIG") ? "MIG-0000000" : "GPU-0000000";
  return strcmp(uuid, "GPU-1234") && strcmp(uuid, "MIG-4321") && strncmp(uuid, stub, 11) ? 6 /* NVML_ERROR_NOT_FOUND */ : 0;
}
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *part, void **device) {
  *device = (void *)0x7f0000000002;
  return part == (void *)0x7f0000000003 ? 0 : 2 /* NVML_ERROR_INVALID_ARGUMENT */;
}
int nvmlSystemGetDriverVersion(char *version, unsigned int length) {
  strncpy(version, "550.54.15", length);
  return 0;
}
int nvmlDeviceGetName(void *device, char *name, unsigned int length) {
  strncpy(name, "Stub", length);
  return 0;
}
int nvmlDeviceGetClockInfo(void *device, int type, unsigned int *mhz) {
  *mhz = device == (void *)0x7f0000000002 && type == 1 ? 1755 : 0;
  return result("clock");
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *reasons) {
  *reasons = getenv("NVML_STUB_REASONS") ? atoi(getenv("NVML_STUB_REASONS")) : 0x44;
  return 0;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned int *milliwatts) {
  *milliwatts = 350500;
  return result("power");
}
int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned int *milliwatts) {
  *milliwatts = 700000;
  return result("limit");
}
int nvmlDeviceGetTemperature(void *device, int sensor, unsigned int *celsius) {
  *celsius = sensor ? 0 : 61;
  return result("temperature");
}
/* This process, and NVML_STUB_PID. */
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *room, Process *processes) {
  unsigned int count = getenv("NVML_STUB_PID") ? 2 : 1, had = *room;
  *room = count;
  if (had < count) return 7 /* NVML_ERROR_INSUFFICIENT_SIZE */;
  memset(processes, 0, count * sizeof *processes);
  processes[0].pid = getpid();
  if (count > 1) processes[1].pid = atoi(getenv("NVML_STUB_PID"));
  return 0;
}
int nvmlEventSetCreate(void **set) {
  *set = (void *)1;
  return 0;
}
int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *set) {
  watched = types == 8 /* nvmlEventTypeXidCriticalError */;
  return 0;
}
/* NVML_STUB_XID, once. */
int nvmlEventSetWait_v2(void *set, Event *event, unsigned int limit_ms) {
  if (!watched || !getenv("NVML_STUB_XID")) return 10 /* NVML_ERROR_TIMEOUT */;
  *event = (Event){.type = 8, .data = atoi(getenv("NVML_STUB_XID"))};
  watched = 0;
  return 0;
}
/* None at first, then NVML_STUB_ECC of those that are not corrected, since the driver was loaded. */
int nvmlDeviceGetTotalEccErrors(void *device, int type, int counter, unsigned long long *count) {
  static int asked;
  *count = asked++ && type == 1 && counter == 0 && getenv("NVML_STUB_ECC") ? atoi(getenv("NVML_STUB_ECC")) : 0;
  return 0;
}
int nvmlDeviceGetCount_v2(unsigned int *count) {
  *count = 2;
  return 0;
}
int nvmlDeviceGetUUID(void *device, char *uuid, unsigned int length) {
  strncpy(uuid, "GPU-1234", length);
  return 0;
}
int nvmlDeviceGetComputeMode(void *device, int *mode) {
  *mode = 3;
  return 0;
}
int nvmlDeviceGetPersistenceMode(void *device, int *mode) {
  *mode = 0;
  return 0;
}
int nvmlDeviceGetMigMode(void *device, unsigned int *now, unsigned int *later) {
  *now = *later = 0;
  return result("mig");
}
int nvmlDeviceGetMaxClockInfo(void *device, int type, unsigned int *mhz) {
  *mhz = type == 1 ? 1995 : 0;
  return 0;
}
