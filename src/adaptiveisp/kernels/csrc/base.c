/* The kernels for every processor of the platform: SSE2 on x86-64, NEON on ARM. */
#define VARIANT(name) adaptiveisp_##name##_base
#include "synthesis.c.inc"
#include "all.c.inc"

/* Returns 1 if the processor can run the kernels of avx2.c, else 0. */
int32_t adaptiveisp_has_avx2(void) {
#if defined(__x86_64__) && defined(__GNUC__)
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
    return 0;
#endif
}

/* Returns 1 if the processor can run the kernels of avx512.c, else 0. Those before Ice Lake, without VBMI2, can too, but
 * lower their clock for wide vectors. */
int32_t adaptiveisp_has_avx512(void) {
#if defined(__x86_64__) && defined(__GNUC__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vbmi2") && adaptiveisp_has_avx2();
#else
    return 0;
#endif
}

int32_t adaptiveisp_interface(void) { return INTERFACE; }
