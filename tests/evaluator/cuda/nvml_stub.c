/* NVML without a GPU: of one card and its part, and of the two of libcuda.c. What NVML_STUB_FAILS names fails. */
#include <stdlib.h>
#include <string.h>

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
  return strcmp(uuid, "GPU-1234") && strcmp(uuid, "MIG-4321") && strncmp(uuid, "GPU-0000000", 11) ? 6 /* NVML_ERROR_NOT_FOUND */ : 0;
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
