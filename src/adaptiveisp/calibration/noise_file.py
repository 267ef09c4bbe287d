"""The results of a calibration: the noise file, the table, and the picture of the photon transfer curve."""

import io
from pathlib import Path
from typing import Any

import yaml

from adaptiveisp.calibration.camera import Calibration, ChannelNoise
from adaptiveisp.raw.noise import FILE_KEY, FILE_VERSION
from adaptiveisp.utils.files import write_bytes, write_text
from adaptiveisp.utils.optional_imports import import_extra

LEAST_READ = 0.01
"""Least read noise of a noise file in codes; darks without any noise are not possible."""
COLOURS = {"R": "#ee6677", "G1": "#228833", "G2": "#ccbb44", "B": "#4477aa", "MONO": "#777777"}
_COMMENT = """\
# The noise of a camera, measured by adaptiveisp calibrate. Use it by synth, train or eval --noise {name}; beside a raw
# it is a sidecar with its levels. Values are in codes; a variance is gain·(mean above black) + read-noise² +
# row-noise².
"""


def as_noise_model(found: Calibration, provenance: dict[str, Any]) -> dict[str, Any]:
    """The content of a noise file, which `raw.noise.read_noise` and, as a sidecar, `raw.sidecars` read."""
    return {
        FILE_KEY: FILE_VERSION,
        "camera": found.camera,
        "gain": _short(found.gain),
        "read-noise": _short(max(found.read, LEAST_READ)),
        "row-noise": _short(found.row),
        "tail": None if found.tail is None else _short(found.tail),
        "raw-black": [_short(level) for level in found.black],
        "raw-white": _short(found.white),
        "white-is-measured": found.white_is_measured,
        "read-noise-electrons": _short(found.read_electrons),
        "defect-share": _short(found.defects),
        "pattern": found.pattern,
        "size": f"{found.size[0]}x{found.size[1]}",
        "darks": found.n_darks,
        "flats": found.n_flats,
        "channels": {channel.name: _channel_entries(channel) for channel in found.channels},
        "remarks": list(found.remarks),
        "provenance": provenance,
    }


def _channel_entries(channel: ChannelNoise) -> dict[str, Any]:
    return {
        "black": _short(channel.black),
        "gain": _short(channel.gain),
        "read-noise": _short(channel.read),
        "read-noise-electrons": _short(channel.read_electrons),
        "mean-and-variance": [[_short(mean), _short(variance)] for mean, variance in channel.points],
        "used": list(channel.used),
    }


def _short(value: float) -> float:
    """A number with six digits, which is more than a measurement has."""
    return float(f"{value:.6g}")


def write_noise_file(path: Path, found: Calibration, provenance: dict[str, Any]) -> None:
    """Writes the noise file, atomically.

    Raises:
        OutputError: it cannot be written.
    """
    text = yaml.safe_dump(as_noise_model(found, provenance), sort_keys=False, allow_unicode=True, width=110)
    write_text(path, _COMMENT.format(name=path.name) + text)


def rows(found: Calibration) -> list[tuple[str, ...]]:
    """Rows of the table that `calibrate` prints, one for each channel: see `HEADER`."""
    return [
        (
            channel.name,
            f"{channel.black:.2f}",
            f"{channel.gain:.4g}",
            f"{channel.read:.3g}",
            f"{channel.read_electrons:.3g}",
            f"{sum(channel.used)} of {len(channel.used)}",
        )
        for channel in found.channels
    ]


HEADER = ("channel", "black", "gain (codes/e-)", "read (codes)", "read (e-)", "levels used")


def write_curve(path: Path, found: Calibration) -> None:
    """Draws the photon transfer curve, variance against mean with the fitted lines, as a PNG.

    Raises:
        AdaptiveISPError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    figure = import_extra("matplotlib.figure", "report").Figure(figsize=(4.8, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for channel in found.channels:
        colour = COLOURS.get(channel.name, "black")
        for is_used, marker in ((True, "o"), (False, "x")):
            points = [point for point, used in zip(channel.points, channel.used, strict=True) if used is is_used]
            axes.plot(*zip(*points, strict=True) if points else ([], []), marker, color=colour, markersize=4)
        most = max(mean for mean, _ in channel.points)
        low = min(mean for mean, _ in channel.points) / 4
        line = [(x, channel.gain * x + channel.read**2) for x in (low * (most / low) ** (i / 40) for i in range(41))]
        axes.plot(*zip(*line, strict=True), "-", color=colour, linewidth=1, label=f"{channel.name} {channel.gain:.3g}")
    axes.set(xscale="log", yscale="log", xlabel="mean above black (codes)", ylabel="variance (codes squared)")
    axes.legend(title="gain (codes/e-)", fontsize="small", frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_bytes(path, content.getvalue())
