/* The kernels for x86-64 processors with AVX2 and FMA. Whoever calls them asks adaptiveisp_has_avx2 first. */
#if defined(__x86_64__) && defined(__GNUC__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define VARIANT(name) adaptiveisp_##name##_avx2
#include "kernels.c.inc"
#include "backward.c.inc"
#include "look.c.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int adaptiveisp_no_avx2_here;
#endif
