"""Run times of modules, chains and policies on this machine, also relative to two reference operations.

The references are a copy of the image and the detector's forward pass, measured in the same run with interleaved
repeats. Ratios to them can be compared between machines; milliseconds alone cannot.
"""

import importlib.util
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from adaptiveisp.detectors.letterbox import frame_size
from adaptiveisp.isp.execution import Call, run_one
from adaptiveisp.isp.registry import BASELINES, EXTENDED, HELPERS, IspModule, find_module
from adaptiveisp.kernels import cuda_graphs, loading
from adaptiveisp.policies.base import Policy
from adaptiveisp.policies.bilateral_grid.checkpoint import STAGE
from adaptiveisp.policies.bilateral_grid.networks import BilateralGridNetwork
from adaptiveisp.policies.bilateral_grid.policy import BilateralGridPolicy
from adaptiveisp.policies.checkpoint import ACTOR_CRITIC, BILATERAL_GRID, SEQUENCE, PolicyHeader
from adaptiveisp.policies.clock_table import some_parameters
from adaptiveisp.policies.environment import actions_of
from adaptiveisp.policies.heuristics import AutoExposure
from adaptiveisp.policies.registry import DEFAULT_POLICY, load_policy
from adaptiveisp.policies.sequence.networks import SequenceNetwork, observe
from adaptiveisp.policies.sequence.policy import SequencePolicy
from adaptiveisp.policies.stepwise.networks import Actor
from adaptiveisp.policies.stepwise.policy import StepwisePolicy
from adaptiveisp.types import Detector, Image

COPY = "copy of the image"
DETECTOR = "detector forward"
CHAIN = ("white_balance", "exposure", "ccm", "gamma", "contrast", "saturation")
"""Six pointwise modules in a camera's order."""
SEQUENCE_MODULES = ("guided_denoise", "white_balance", "ccm", "gamma", "sharpen")
"""Modules that the sequence policy runs after auto-exposure: a cheap denoiser, then a camera's order."""
STEPS = ("exposure", "gamma", "ccm", "tone", "saturation")
"""Modules that the step-wise policy runs: five, without non-local means."""


@dataclass(frozen=True)
class Timing:
    """Median milliseconds of one operation, and of its plain version where there is one.

    Attributes:
        name: name of the operation; for a module the module's name.
        kind: "module", "chain", "policy", or "peer" for a reference operation.
        ms: median milliseconds.
        plain_ms: median milliseconds of the module's own PyTorch function, without kernels, CUDA graphs and gradients;
            on a GPU also of chains and policies without graphs. None where it was not measured.
    """

    name: str
    kind: str
    ms: float
    plain_ms: float | None = None


def medians(
    functions: Mapping[str, Callable[[], object]], repeats: int, synchronise: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Median milliseconds of each function. Runs are interleaved, so that a slow moment of the machine affects all.

    Args:
        functions: by name; each runs once before the first measurement.
        repeats: number of measurements of each function.
        synchronise: waits until a device has done its work.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(repeats):
        for name, function in functions.items():
            synchronise()
            start = time.perf_counter()
            function()
            synchronise()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def some_calls(names: Sequence[str]) -> list[Call]:
    """Calls of these modules of the set `extended` (or helpers), with the parameters of `some_parameters`."""
    modules = [find_module(name, "extended") for name in names]
    return [(module, some_parameters(module)) for module in modules]


def untrained_policy(horizon: int = len(STEPS)) -> StepwisePolicy:
    """A step-wise policy with random weights, on which its run time does not depend."""
    modules = actions_of("wide")
    names = tuple(module.name for module in modules)
    header = PolicyHeader(
        kind=ACTOR_CRITIC,
        module_set="wide",
        modules=names,
        horizon=horizon,
        view="log",
        start="raw",
        once=False,
        origin="bench",
    )
    return StepwisePolicy(header, Actor(modules, view="log").eval(), "step-wise")


def untrained_sequence() -> SequencePolicy:
    """A sequence policy before training, with auto-exposure as its preprocessing."""
    modules = actions_of("extended", stop=True)
    names = tuple(module.name for module in modules)
    header = PolicyHeader(
        SEQUENCE, "extended", names, len(names) - 1, "log", "auto-exposure", once=True, origin="bench"
    )
    return SequencePolicy(header, SequenceNetwork(modules, "image", header.horizon), "sequence")


def whole_policies(device: str = "cpu") -> list[Policy]:
    """Policies whose whole time is measured, with the modules that they choose: the default one, and bilateral grids.

    The grids are untrained; their time does not depend on their weights.
    """
    made = [load_policy(DEFAULT_POLICY, device)]
    for denoiser in ("none", "guided_denoise", "denoise"):
        names = (STAGE,) if denoiser == "none" else (denoiser, STAGE)
        header = PolicyHeader(
            BILATERAL_GRID, "extended", names, len(names), "log", "auto-exposure", once=True, origin="bench"
        )
        module = None if denoiser == "none" else find_module(denoiser, "extended")
        network = BilateralGridNetwork(side=16, depth=8, knots=8, denoiser=module).to(device)
        name = "bilateral grid" if module is None else f"bilateral grid after {denoiser}"
        made.append(BilateralGridPolicy(header, network, name))
    return made


def sample_image(size: int, device: str = "cpu") -> Image:
    """A (1, 3, size, size) image of noise over a gradient, in [0, 1]; the same in every call."""
    noise = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    return (0.5 * noise + 0.5 * torch.linspace(0, 1, size)).to(device)


@torch.inference_mode()
def run_benchmark(
    size: int,
    repeats: int,
    detector: Detector | None = None,
    device: str = "cpu",
    own_modules: Sequence[IspModule] = (),
) -> list[Timing]:
    """Run times of modules, chains, policies and the two reference operations at size x size pixels.

    Args:
        size: side of the square image in pixels.
        repeats: number of measurements of each operation, of which the median is returned.
        detector: its forward pass with decoding and non-maximum suppression is a reference; None leaves it out.
        device: where everything runs.
        own_modules: modules from outside the package that are timed too.
    """
    image = sample_image(size, device)
    # On a flat image the detector finds about as few boxes as on a photo.
    frame = torch.full((1, 3, *[frame_size(size, detector.stride)] * 2), 0.5, device=device) if detector else None
    policy, heuristic = untrained_policy(), AutoExposure()
    policy.actor.to(device)
    forced = [policy.header.modules.index(name) for name in STEPS]

    def automatic() -> None:
        heuristic.plan(image)[0].render(image)

    fast: dict[str, Callable[[], object]] = {COPY: image.clone}
    if detector is not None and frame is not None:
        fast[DETECTOR] = lambda: detector.detect(frame)
    kinds = dict.fromkeys(fast, "peer")
    plain: dict[str, Callable[[], object]] = {}
    for module in (*EXTENDED, *HELPERS, *_timed_baselines(), *own_modules):
        call = (module, some_parameters(module))
        row = torch.tensor([call[1]], device=device).reshape(1, -1)
        fast[module.name] = lambda call=call: run_one(image[0], [call])  # type: ignore[misc]
        plain[module.name] = lambda m=module, row=row: m(image, row)  # type: ignore[misc]
        kinds[module.name] = "module"
    chains = {f"{len(CHAIN)} pointwise modules": CHAIN, "the same with sharpen": (*CHAIN, "sharpen")}
    for name, names in chains.items():
        calls = some_calls(names)
        fast[name] = lambda calls=calls: run_one(image[0], calls)  # type: ignore[misc]
        kinds[name] = "chain"
    fast["auto-exposure"] = automatic
    fast[f"step-wise policy, {len(STEPS)} modules"] = lambda: policy.process(image, forced)
    dim = image * 0.05  # dark, so that auto-exposure has to brighten it
    sequence = untrained_sequence()
    sequence.network.to(device)
    own = [sequence.header.modules.index(name) for name in SEQUENCE_MODULES]
    observation = observe(dim, "auto-exposure")
    fast["sequence policy, prediction alone"] = lambda: sequence.plan_and_observe(dim, own, observation.preprocessed)
    fast[f"sequence policy, {len(SEQUENCE_MODULES)} modules after auto-exposure"] = lambda: sequence.process(dim, own)
    fast |= {whole.name: partial(whole.process, dim) for whole in whole_policies(device)}
    kinds |= {name: "policy" for name in fast if name not in kinds}
    wait = torch.cuda.synchronize if device == "cuda" else _nothing
    found = medians(fast, repeats, wait)
    if device == "cuda":
        plain |= {name: function for name, function in fast.items() if kinds[name] in ("chain", "policy")}
    with loading.turned_off(), cuda_graphs.turned_off():
        slow = medians(plain, max(3, repeats // 3), wait)
    return [Timing(name, kinds[name], ms, slow.get(name)) for name, ms in found.items()]


def _timed_baselines() -> list[IspModule]:
    """The modules of baselines that can run here: CLAHE needs OpenCV."""
    without_opencv = importlib.util.find_spec("cv2") is None
    return [module for module in BASELINES if not (module.name == "clahe" and without_opencv)]


def _nothing() -> None:
    """Does nothing: on a CPU the work is done when a call returns."""


def to_json(timings: Sequence[Timing]) -> list[dict[str, Any]]:
    """Each timing with its ratios to the reference operations that were measured."""
    references = {timing.name: timing.ms for timing in timings if timing.kind == "peer"}
    rows = []
    for timing in timings:
        row: dict[str, Any] = {"name": timing.name, "kind": timing.kind, "ms": timing.ms}
        row |= {"copies": timing.ms / references[COPY]}
        if DETECTOR in references:
            row["detector_forwards"] = timing.ms / references[DETECTOR]
        if timing.plain_ms is not None:
            row |= {"plain_ms": timing.plain_ms, "faster_than_plain": timing.plain_ms / timing.ms}
        rows.append(row)
    return rows


def module_costs(timings: Sequence[Timing]) -> dict[str, float]:
    """Module → milliseconds, the content of a cost table."""
    return {timing.name: timing.ms for timing in timings if timing.kind == "module"}
