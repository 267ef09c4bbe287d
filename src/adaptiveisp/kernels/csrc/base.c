/* The kernels for any processor the compiler knows: SSE2 on x86-64, NEON on ARM. */
#define VARIANT(name) adaptiveisp_##name##_base
#include "synthesis.c.inc"
#include "kernels.c.inc"
#include "resize.c.inc"
#include "backward.c.inc"
#include "observation.c.inc"

/* 1 where the processor runs the kernels of avx2.c. */
int32_t adaptiveisp_has_avx2(void) {
#if defined(__x86_64__) && defined(__GNUC__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 0;
#endif
}

int32_t adaptiveisp_interface(void) { return INTERFACE; }
