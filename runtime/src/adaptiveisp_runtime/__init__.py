"""Runs the graphs that `adaptiveisp export` writes: the bytes of a raw frame go in, boxes come out.

It needs NumPy and onnxruntime only.
"""

from adaptiveisp_runtime.errors import RuntimeFault
from adaptiveisp_runtime.frames import FrameFormat, read_frames, unpack
from adaptiveisp_runtime.manifest import Manifest, load_manifest
from adaptiveisp_runtime.operators import Fault, check_graphs
from adaptiveisp_runtime.result import Detections, Pipeline, Result, Stage, Timings
from adaptiveisp_runtime.self_test import SelfTest
from adaptiveisp_runtime.session import Session, available_providers
from adaptiveisp_runtime.stream import StreamStats, stream

__all__ = [
    "Detections",
    "Fault",
    "FrameFormat",
    "Manifest",
    "Pipeline",
    "Result",
    "RuntimeFault",
    "SelfTest",
    "Session",
    "Stage",
    "StreamStats",
    "Timings",
    "available_providers",
    "check_graphs",
    "load_manifest",
    "read_frames",
    "stream",
    "unpack",
]
