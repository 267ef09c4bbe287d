/* The kernels for x86-64 processors with AVX2 and FMA. Callers ask adaptiveisp_has_avx2 first. */
#if defined(__x86_64__) && defined(__GNUC__)
#define VARIANT(name) adaptiveisp_##name##_avx2
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif
#include "synthesis.c.inc" /* whose results FMA would change */
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#include "all.c.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int adaptiveisp_no_avx2_here;
#endif
