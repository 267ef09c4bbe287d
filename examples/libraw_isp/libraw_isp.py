"""LibRaw as an external ISP, in two ways: behind a pipe (rawpy in a child process), and by files (dcraw_emu).

    adaptiveisp train --method cma_es --module libraw_isp:LIBRAW --data train/ --dev dev/ --out tuned
    adaptiveisp eval --data dev/ --module libraw_isp:LIBRAW --policy defaults.json tuned --out scores

Run it from this folder, or put this folder on PYTHONPATH. The raws have to be mosaics (DNGs).
"""

import sys
from pathlib import Path

from adaptiveisp import Param
from adaptiveisp.external.program import ProgramISP
from adaptiveisp.external.worker import WorkerISP

TONE = (
    Param("bright", 0.25, 8.0, "", 1.0, "log"),  # factor after the automatic brightness
    Param("power", 1.0, 5.0, "", 2.222, "log"),  # of the curve; LibRaw's default is that of BT.709
    Param("slope", 1.0, 50.0, "", 4.5, "log"),  # of the curve at black
)
NOISE_THR = Param("noise_thr", 1.0, 3000.0, "", 1.0, "log")  # threshold of the wavelet denoiser
MEDIAN = Param("median", 0.0, 4.0, "passes", 0.0)  # of the median filter on colour differences, rounded

LIBRAW = WorkerISP(
    "libraw",
    (
        Param("red", 0.5, 2.0, "", 1.0, "log"),  # factors on the camera's own white balance
        Param("blue", 0.5, 2.0, "", 1.0, "log"),
        *TONE,
        Param("burnt", 0.0001, 0.2, "", 0.01, "log"),  # share of pixels that the automatic brightness may burn
        Param("fbdd", 0.0, 2.0, "", 0.0),  # denoiser before demosaicing: off, light or full, rounded
        MEDIAN,
    ),
    [sys.executable, str(Path(__file__).with_name("libraw_worker.py"))],
)
"""rawpy in a child process. The wavelet denoiser is left out: rawpy 0.28 (LibRaw 0.22) damaged its memory with it, on
Bayer DNGs of 640x480, and hung or ended; the LibRaw 0.20 of `DCRAW_EMU` did not."""

DCRAW_EMU = ProgramISP(
    "dcraw_emu",
    (*TONE, NOISE_THR, MEDIAN),
    [
        *("dcraw_emu", "-w", "-b", "{bright:.4f}", "-g", "{power:.4f}", "{slope:.4f}"),
        *("-n", "{noise_thr:.2f}", "-m", "{median:.0f}", "{raw}"),
    ],
    picture="{raw}.ppm",
)
"""LibRaw's sample program of Debian's package libraw-bin, which reads a DNG and writes RAW.dng.ppm."""
