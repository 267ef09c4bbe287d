"""The base classes of backends: `Engine` runs a network, `InferenceNetwork` is a detector that can use one.

Only the network is run by an engine. Decoding and suppression stay in PyTorch in float32, so that the boxes of all
backends differ by the rounding of the network alone. Losses with a gradient never use an engine.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor, nn

from adaptiveisp.detectors.checks import check_image
from adaptiveisp.errors import AdaptiveISPError, DetectorError, logger
from adaptiveisp.types import Image
from adaptiveisp.utils.own_code import reason_of

Precision: TypeAlias = Literal["float32", "bfloat16"]
"""Type of the network's intermediate values."""

Compiled: TypeAlias = Callable[[Image], Sequence[Tensor]]
"""A network that is ready to run; it can be called from several threads at once."""

TOLERANCE: dict[Precision, float] = {"float32": 1e-3, "bfloat16": 5e-2}
"""Greatest difference of an engine's outputs from those of PyTorch in float32, relative to the greatest value of each
output. Measured for YOLOv3-tiny: 1e-6 in float32, 1e-2 in bfloat16."""

MOST_COMPILED = 4
"""Most shapes and numbers of threads for which a compiled network is kept."""


class Engine(ABC):
    """Runs a network in a certain precision. Each shape of image is compiled once, and then compared with PyTorch.

    Compiled networks are left out when an engine is pickled, and made again when they are needed.

    Args:
        precision: type of the network's intermediate values.

    Attributes:
        backend: name of the backend.
    """

    backend: ClassVar[str]

    def __init__(self, precision: Precision):
        self.precision = precision
        self._compiled: dict[Any, Compiled] = {}
        self._lock = threading.Lock()

    @abstractmethod
    def compile(self, network: nn.Module, example: Image, threads: int) -> Compiled:
        """The network made ready for images of one shape.

        Args:
            network: gives a sequence of tensors for a batch of images.
            example: one image, whose values do not matter.
            threads: number of threads that one call may use.
        """

    def key(self, image: Image, threads: int) -> Any:
        """The facts for which a compiled network is valid."""
        return (tuple(image.shape[1:]), threads)

    def __call__(self, network: nn.Module, image: Image) -> list[Tensor]:
        """The outputs of the network in float32.

        Images are run one by one: on a processor a batch takes as long as its images, and libraries compile a fixed
        shape to faster code.

        Args:
            network: the network, always the same one for one engine.
            image: batch of images as the network takes them.

        Raises:
            DetectorError: the network cannot be compiled, or its outputs differ from those of PyTorch.
        """
        if not len(image):
            return list(network(image))
        compiled = self._compiled_for(network, image)
        found = [compiled(one) for one in torch.split(image.float(), 1)]
        return [torch.cat(parts).float() for parts in zip(*found, strict=True)]

    def _compiled_for(self, network: nn.Module, image: Image) -> Compiled:
        """The compiled network for images of this shape and the current number of threads."""
        threads = torch.get_num_threads()
        key = self.key(image, threads)
        with self._lock:
            if key not in self._compiled:
                while len(self._compiled) >= MOST_COMPILED:
                    del self._compiled[next(iter(self._compiled))]
                self._compiled[key] = self._checked(network, image, threads)
            return self._compiled[key]

    def _checked(self, network: nn.Module, image: Image, threads: int) -> Compiled:
        """A newly compiled network whose outputs for a random image agree with those of PyTorch in float32.

        Raises:
            DetectorError: it cannot be compiled, or it does not agree.
        """
        name = getattr(network, "name", type(network).__name__)
        generator = torch.Generator().manual_seed(0)
        # Tensors made in inference mode could not be used outside of it.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(image.device.type, enabled=False):
            trial = torch.rand(1, *image.shape[1:], generator=generator).to(image.device)
            expected = list(network(trial))
            try:
                compiled = self.compile(network, trial, threads)
                found = list(compiled(trial))
            except AdaptiveISPError:
                raise
            except Exception as error:  # the exceptions of these libraries have no common base
                logger.debug("detector %s: backend %s", name, self.backend, exc_info=error)
                raise DetectorError(
                    f"detector {name}: backend {self.backend} cannot run it ({reason_of(error)}); use --backend torch"
                ) from error
        difference = _difference(expected, found)
        if not difference <= TOLERANCE[self.precision]:
            raise DetectorError(
                f"detector {name}: backend {self.backend} in {self.precision} differs from PyTorch by "
                f"{difference:.2g} of the greatest output, more than rounding; use --backend torch --precision float32"
            )
        return compiled

    def __getstate__(self) -> dict[str, Any]:
        """All but the compiled networks and the lock, which cannot be pickled."""
        return {name: value for name, value in vars(self).items() if name not in ("_compiled", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restores the settings, without compiled networks."""
        vars(self).update(state)
        self._compiled, self._lock = {}, threading.Lock()


class InferenceNetwork(nn.Module):
    """A detector of the package whose network an engine may run for detection; without one it is run by PyTorch.

    Attributes:
        engine: the engine, see `choice.with_backend`; None for PyTorch in float32.
    """

    engine: Engine | None = None
    name: str
    stride: int

    def infer(self, image: Image) -> Sequence[Tensor]:
        """The outputs of the network, without a gradient if there is an engine.

        Args:
            image: RGB in [0, 1], height and width multiples of `stride`.

        Raises:
            DetectorError: the image has another shape, or the engine cannot run the network.
        """
        if self.engine is None:
            outputs: Sequence[Tensor] = self(image)
            return outputs
        check_image(self.name, image, self.stride)
        return self.engine(self, image)

    @property
    def backend(self) -> str:
        """Name of the backend that runs the network for detection."""
        return "torch" if self.engine is None else self.engine.backend

    @property
    def precision(self) -> Precision:
        """Type of the network's intermediate values in detection."""
        return "float32" if self.engine is None else self.engine.precision


class Outputs(nn.Module):
    """A network whose outputs are a tuple of tensors, the form in which networks are exported."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the network."""
        return tuple(self.network(image))


def _difference(expected: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """Greatest difference of the outputs relative to the greatest expected value of each; infinite for other shapes."""
    if [value.shape for value in expected] != [value.shape for value in found]:
        return float("inf")
    ratios = [
        float((a.float() - b.float()).abs().max() / a.abs().max().clamp(min=1e-6))
        for a, b in zip(expected, found, strict=True)
        if a.numel()
    ]
    # `max` would pass over NaN, depending on its place.
    return sum(ratios) if any(ratio != ratio for ratio in ratios) else max(ratios, default=0.0)
