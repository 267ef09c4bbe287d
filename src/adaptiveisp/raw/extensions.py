"""The kinds of raw files by their extensions, and the conversion of other files to one of them."""

from pathlib import Path

CAMERA_EXTENSIONS = frozenset(
    {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".kdc", ".mef"}
    | {".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f"}
)
HEADERLESS_EXTENSIONS = frozenset({".raw", ".bin", ".bayer"})
TIFF_EXTENSIONS = frozenset({".tif", ".tiff"})
PNM_EXTENSIONS = frozenset({".pgm", ".ppm", ".pnm"})
NUMPY_EXTENSIONS = frozenset({".npy", ".npz"})
STACK_EXTENSIONS = TIFF_EXTENSIONS | PNM_EXTENSIONS | NUMPY_EXTENSIONS
"""Extensions of files that state how many frames they hold."""
ARRAY_EXTENSIONS = STACK_EXTENSIONS | {".png", ".exr"}
KNOWN_EXTENSIONS = CAMERA_EXTENSIONS | HEADERLESS_EXTENSIONS | ARRAY_EXTENSIONS
PHOTO_EXTENSIONS = frozenset({".jpg", ".jpeg", ".webp", ".bmp"})
"""Extensions of files that can only be photos."""
PHOTO_REMEDY = "photos are no raws: give them to eval or train with --light, or make raws of them with synth"

_CONVERTERS = {
    ".fits": ("astropy", "astropy.io.fits.getdata({name!r})", ""),
    ".mat": ("scipy", "scipy.io.loadmat({name!r})['KEY']", ""),
}
"""Extension → package to install, code that returns the array with unchanged values, and a hint."""
_SAME_AS = {".fit": ".fits"}
CONVERTIBLE_EXTENSIONS = frozenset({*_CONVERTERS, *_SAME_AS})


def converter(path: Path) -> str:
    """Instructions for converting a file of an unsupported kind to a supported one; "" if none are known.

    >>> converter(Path("a/x.fit"))
    "pip install astropy, then in Python numpy.save('x.npy', astropy.io.fits.getdata('x.fit'))"
    """
    extension = path.suffix.lower()
    found = _CONVERTERS.get(_SAME_AS.get(extension, extension))
    if found is None:
        return ""
    package, code, hint = found
    install = f"pip install {package}, then " if package else ""
    line = f"{install}in Python numpy.save({path.stem + '.npy'!r}, {code.format(name=path.name)})"
    return line + hint.format(name=path.name)
