"""Defaults that several packages and the command line share: each value is stated here and nowhere else."""

from typing import Final

SIZE = 416
"""Longer side in pixels at which policy, modules and detector work."""
DETECTOR = "yolov3-tiny"
POLICY = "coco-adaptive"
"""The policy of `run` and `AdaptiveISP`."""
CONFIDENCE = 0.05
"""Least score of a box in the results of `run` and `AdaptiveISP`."""

BACKENDS = ("auto", "torch", "onnxruntime", "openvino")
"""Backends that run a detector's network; `auto` keeps the detector's own."""
PRECISIONS = ("auto", "float32", "bfloat16")
"""Types of a detector network's intermediate values; `auto` is float32."""
RECONNECT_S = 60.0
"""Seconds in which a stream tries to open a lost camera or address again."""

SEED = 0
"""Seed of all random numbers."""
DRAWS = 1
"""Random cameras, lights and noises for each photo of which raws are made."""
NOISE: Final = "sensor"
"""Noise model of raws that are made of photos."""
CAMERA_MATRIX: Final = "brooks"
"""Cameras whose colours such raws have: random mixtures of the four of Brooks et al. 2019."""
ILLUMINANTS: Final = "daylight"
"""Light sources of such raws."""
RAW_FORMAT: Final = "png16"
"""File format of raws that `synth` writes."""
FRAME_CACHE_GB = 20.0
"""Limit of a folder of developed raws in 10^9 bytes."""

RESAMPLES = 1000
"""Resamples of the paired bootstrap."""
MIN_RESAMPLES = 200
"""With fewer, the ends of an interval are mostly chance."""

METHOD = "actor_critic"
"""Training method."""
LABELS: Final = "given"
"""Source of the training targets: the annotations of the data."""
BUDGET = 12_000
"""Images that pass through the detector in a training run."""
CHECKPOINT_EVERY = 200
"""Training iterations between checkpoints."""
DEV_EVERY = 500
"""Training iterations between scores on the dev set."""
RANK_TIMEOUT = 600.0
"""Seconds for which a process of a shared training run waits for the others; reading the first batch of large raws may
take minutes."""
