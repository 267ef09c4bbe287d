"""Learners that tests run with one rank and with several: small images, and a detector with a small network."""

import os
import pickle
import signal
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from adaptiveisp.data.training_images import TrainingImage
from adaptiveisp.training.distributed import join
from adaptiveisp.training.methods.actor_critic.settings import CPU, PAPER
from adaptiveisp.training.methods.fixed import RAW
from adaptiveisp.training.methods.learner import BaseLearner
from adaptiveisp.training.methods.registry import find_method
from adaptiveisp.training.methods.sequence.settings import ADAPTIVE
from adaptiveisp.types import Detections, Image, Targets

SMALL = ("white_balance", "exposure", "gamma", "contrast", "sharpen")
SEQUENCE = replace(ADAPTIVE, modules=SMALL, expert_modules=SMALL, imitation_warmup=0.2, horizon=5)
EPISODES = replace(
    CPU, modules=SMALL, expert_modules=SMALL[:3], imitation_warmup=0.1, horizon=4, rollout=4, replay_size=16
)
LISTED = (("exposure",), ("exposure", "gamma"), ("contrast",))


SETTINGS: dict[str, tuple[str, Any]] = {
    "fixed": ("fixed", replace(RAW, modules=SMALL, initial={}, batch=8, size=64)),
    "sequence": ("sequence", SEQUENCE),
    "sampled": ("sequence", replace(SEQUENCE, candidates="samples", exploration=0.1, dropout=0.1)),
    "listed": ("sequence", replace(SEQUENCE, candidates="listed", pipelines=LISTED, group_size=3, batch=9)),
    "actor_critic": ("actor_critic", EPISODES),
    "edits": ("actor_critic", replace(EPISODES, candidates="edits")),
    "paper": ("actor_critic", replace(PAPER, modules=SMALL, replay_size=16, module_set="wide")),
}
"""Name of a test's run → its method and settings; `paper` has live batch norm and a bootstrap from the critic."""


class GreyImages:
    """Dark coloured squares with noise, different for each number."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype
        self.read: list[int] = []

    def __getitem__(self, number: int) -> TrainingImage:
        self.read.append(number)
        generator = torch.Generator().manual_seed(number)
        image = 0.05 + 0.1 * torch.rand(1, 3, 8, 8, generator=generator, dtype=torch.float64)
        image = nn.functional.interpolate(image, size=64, mode="bilinear")[0]
        image += 0.01 * torch.randn(3, 64, 64, generator=generator, dtype=torch.float64)
        box = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
        return TrainingImage(
            number, image.clamp(0, 1).to(self.dtype), Targets(box, torch.zeros(1, dtype=torch.long)), 0.1
        )


class SmallNetwork:
    """A detector whose loss comes from a small network with fixed random weights."""

    name, class_names, stride, weights_sha256 = "small", ("thing",), 32, ""

    def __init__(self, dtype: torch.dtype):
        generator = torch.Generator().manual_seed(5)
        sizes = (3, 8, 16)
        layers: list[nn.Module] = []
        for before, after in zip(sizes, (*sizes[1:], 1), strict=True):
            layer = nn.Conv2d(before, after, 3, stride=2, padding=1)
            layer.weight.data = 0.3 * torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
            layer.bias.data = 0.3 * torch.randn(layer.bias.shape, generator=generator, dtype=torch.float64)
            layers += [layer, nn.Tanh()]
        self.network = nn.Sequential(*layers).to(dtype).requires_grad_(False)

    def loss(self, image: Image, targets: list[Targets]) -> Float[Tensor, " batch"]:
        return (self.network(image) - 0.5).square().mean(dim=(1, 2, 3))

    def detect(
        self, image: Image, confidence: float = 0.001, nms_iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        raise NotImplementedError


def learner(name: str, budget: int, dtype: torch.dtype) -> BaseLearner[Any]:
    method, settings = SETTINGS[name]
    settings = replace(settings, size=64, precision="float32", **({"costs": {}} if hasattr(settings, "costs") else {}))
    return find_method(method).learner(settings, GreyImages(dtype), SmallNetwork(dtype), budget, 3, "cpu")  # type: ignore[return-value]


def gradients(subject: Any) -> list[list[float]]:
    """Of each weight the norm of the gradient of the last optimiser step, and some of its values."""
    networks = getattr(subject, "networks", None)
    optimisers = [networks.actor_optimiser, networks.critic_optimiser] if networks else [subject.optimiser]
    every = [p.grad for one in optimisers for group in one.param_groups for p in group["params"]]
    return [[] if g is None else [float(g.norm()), *g.flatten()[:: max(1, g.numel() // 50)].tolist()] for g in every]


def record(name: str, iterations: int, dtype: torch.dtype) -> dict[str, Any]:
    """The metrics of some iterations, the gradients of the first one, the numbers of the images that were read, and the
    sums of the weights and other tensors at the end."""
    former = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        subject = learner(name, iterations * 8, dtype)
        subject.ranks = join()
        lines, first = [], []
        while subject.iteration < iterations:
            lines.append(subject.iterate()[0])
            first = first or gradients(subject)
        state = [float(tensor.double().sum()) for tensor in _tensors(subject.state_dict())]
    finally:
        torch.set_default_dtype(former)
    return {"metrics": lines, "gradients": first, "read": subject.stream.read, "state": state}


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for item in items for tensor in _tensors(item)]


def flat(value: Any, name: str = "") -> dict[str, float]:
    """The numbers in nested mappings by their paths."""
    if not isinstance(value, dict):
        return {name: float(value)}
    return {path: number for key, inner in value.items() for path, number in flat(inner, f"{name}/{key}").items()}


def in_ranks(size: int, work: Callable[[], Any], folder: Path, seconds: float = 300.0) -> list[Any]:
    """The results of work that several forked processes do as the ranks of a run; None of one that failed.

    Args:
        size: number of processes.
        work: called in each; `join` gives its ranks.
        folder: for their results.
        seconds: after which processes that are still running are killed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    paths = [folder / f"rank-{rank}-of-{size}.pickle" for rank in range(size)]
    pids = [_forked(rank, size, port, work, path) for rank, path in enumerate(paths)]
    end = time.monotonic() + seconds
    for pid in pids:
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > end:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
    return [pickle.loads(path.read_bytes()) if path.exists() else None for path in paths]


def _forked(rank: int, size: int, port: int, work: Callable[[], Any], path: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    place = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    try:
        result = work()
        path.write_bytes(pickle.dumps(result))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)
