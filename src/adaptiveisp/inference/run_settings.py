"""The settings that decide the results of a run, stored beside them, so that `--resume` goes on with the same."""

from collections.abc import Sequence
from typing import Any

from adaptiveisp.detectors.backends.choice import backends_of
from adaptiveisp.inference.fingerprint import detector_fingerprint, fingerprint
from adaptiveisp.inference.frames import Frame, digest_of
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.inference.run_options import RunOptions
from adaptiveisp.utils.provenance import package_version


def settings_of(
    isp: AdaptiveISP, options: RunOptions, frames: Sequence[Frame], shard: str | None = None
) -> dict[str, Any]:
    """The settings of a run by the names of its options.

    Args:
        isp: policy and detector, whose content counts and not the place where it comes from.
        options: what is written.
        frames: all frames, before they are split into shards.
        shard: the shard as it was given, or None.
    """
    detector = isp.detector
    backend = backends_of(detector)
    return {
        "version": package_version(),
        "--policy": f"{isp.policy.name}, content {fingerprint(isp.policy)}",
        "--detector": f"{detector.name}, {detector_fingerprint(detector)}",
        "--backend": backend["backend"],
        "--precision": backend["precision"],
        "--size": isp.size,
        "--confidence": isp.confidence,
        "--latency-ms": isp.latency_ms,
        "--camera-white-balance": isp.camera_white_balance,
        "--device": isp.device.type,
        **options.settings(),
        "--shard": shard,
        "inputs": f"{len(frames)} frames, ids {digest_of(frames)}",
    }
