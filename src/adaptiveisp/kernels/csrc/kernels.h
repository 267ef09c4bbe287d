/* Constants that the kernels share with kernels/loading.py and kernels/forward.py. */

#ifndef ADAPTIVEISP_KERNELS_H
#define ADAPTIVEISP_KERNELS_H

#define INTERFACE 5 /* kernels/loading.py has the same number; every change of a signature raises both */
#define OP_CONSTANTS 9 /* numbers of one operation of a chain */

enum {
    OP_SCALE = 0,
    OP_POWER = 1,
    OP_SRGB = 2,
    OP_MATRIX = 3,
    OP_CURVE = 4,
    OP_CONTRAST = 5,
    OP_SATURATION = 6,
    OP_DESATURATION = 7,
    OP_AFFINE = 8,
};

#endif
