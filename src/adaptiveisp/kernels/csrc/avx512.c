/* The kernels that gain from AVX-512, for x86-64 processors that run it at full clock. Their results do not depend on the
 * width of vectors, so they are bit for bit those of avx2.c. Callers ask adaptiveisp_has_avx512 first. */
#if defined(__x86_64__) && defined(__GNUC__)
#define VARIANT(name) adaptiveisp_##name##_avx512
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,prefer-vector-width=512")
#endif
#include "common.c.inc"
#include "pointwise.c.inc"
#include "sharpen.c.inc"
#include "non_local_means.c.inc"
#include "demosaic.c.inc"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int adaptiveisp_no_avx512_here;
#endif
