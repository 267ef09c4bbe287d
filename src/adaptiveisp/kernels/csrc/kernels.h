/* Constants that the kernels share with kernels/loading.py and kernels/forward.py. */

#ifndef ADAPTIVEISP_KERNELS_H
#define ADAPTIVEISP_KERNELS_H

#define INTERFACE 12 /* kernels/loading.py has the same number; every change of a signature raises both */
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

enum {
    UNPACK_CSI2_10 = 0,
    UNPACK_CSI2_12 = 1,
    UNPACK_CSI2_14 = 2,
    UNPACK_LSB_10 = 3,
    UNPACK_LSB_12 = 4,
    UNPACK_LSB_14 = 5,
    UNPACK_GIGE_10 = 6,
    UNPACK_GIGE_12 = 7,
};

#endif
