"""The settings of an evaluation: `EvalConfig` for users, `ScoringOptions` for the evaluator alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adaptiveisp.data.sources import Data, Source, sources_of
from adaptiveisp.data.synthetic import SynthesisConfig
from adaptiveisp.evaluation.bootstrap import MIN_RESAMPLES
from adaptiveisp.isp.costs import Costs
from adaptiveisp.policies.base import Planner
from adaptiveisp.policies.latency import check_latency
from adaptiveisp.types import Detector
from adaptiveisp.utils import defaults
from adaptiveisp.utils.config import require

Synthesis = SynthesisConfig | str | None
"""How raws are made of photos: settings, the name of a light, or None where the images are raws."""


@dataclass(frozen=True)
class ScoringOptions:
    """How `score_dataset` reads, develops and scores the raws of a data set that is already open.

    Attributes:
        size: longer side in pixels at which policies, modules and detectors work.
        camera_white_balance: apply the camera's own gains before a policy observes the image.
        workers: processes that read raws ahead; 0 reads in this process.
        device: where modules and detectors run, "cpu" or "cuda".
        costs: module → milliseconds, for the reported cost; empty for the paper's table.
        losses: whether to compute the detectors' losses, of the policies and of the two references in `detector_loss`.
        cache: folder where developed raws are kept, see `data.frame_cache`; "" keeps none.
    """

    size: int
    camera_white_balance: bool = False
    workers: int = 0
    device: str = "cpu"
    costs: Costs = field(default_factory=dict)
    losses: bool = False
    cache: str = ""


@dataclass(frozen=True)
class EvalConfig:
    """What to evaluate, and how.

    Attributes:
        data: a folder made by `synth`, a COCO JSON, a data-set YAML (`FILE.yaml:SPLIT` names its split), or an opened
            data set. A list of several is scored on each alone and by the mean over them, see `pooling`.
        policies: names, files, run folders, `NAME=P1,P2,…` for the runs of one method, or policy objects. Objects
            come after the named ones in the report.
        detectors: names, files, or detector objects.
        images: folder of the images of a COCO JSON; of several JSONs one folder for all, or a list with one for each.
        synthesis: how raws are made from the images, which must be sRGB photos then; a string names the light. None
            where the images are raws. A list has one for each data set, for instance with other numbers of draws.
        limit: number of photos to evaluate, the first of each data set, each with all its draws; 0 takes all.
        size: longer side in pixels at which policies, modules and detectors work; None takes the fixed input size of
            the detectors, or else 416.
        steps: number of steps of step-wise policies, and the most of sequences and oracles; 0 keeps their own number.
        camera_white_balance: apply the camera's own gains before a policy sees the image.
        costs: cost table, as a file or as module → milliseconds; None takes the paper's table.
        latency_ms: most milliseconds of policy and modules for an image, for which modules are dropped from pipelines,
            see `policies.latency`; None for no limit.
        cache: folder where developed raws are kept for later evaluations; "" keeps none.
        resamples: number of resamples of the paired bootstrap, at least 200.
        seed: seed of the bootstrap, and of the raws where `synthesis` names a light.
        workers: processes that read raws ahead; 0 reads in this process.
        device: where modules and detectors run, "cpu" or "cuda".
        backend, precision: how the detectors' networks are run, see `detectors.backends.choice.with_backend`.

    Raises:
        UsageError: a value is out of range, there is no policy or detector, or the image folders do not fit the data.
    """

    data: Data | Sequence[Data]
    policies: Sequence[str | Planner]
    detectors: Sequence[str | Detector] = (defaults.DETECTOR,)
    images: str | Path | Sequence[str | Path] | None = None
    synthesis: Synthesis | Sequence[Synthesis] = None
    limit: int = 0
    size: int | None = None
    steps: int = 0
    camera_white_balance: bool = False
    costs: str | Path | Costs | None = None
    latency_ms: float | None = None
    cache: str = ""
    resamples: int = defaults.RESAMPLES
    seed: int = defaults.SEED
    workers: int = 0
    device: str = "cpu"
    backend: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        require(not isinstance(self.policies, str), f"policies = {self.policies!r}: give a list of policies")
        require(not isinstance(self.detectors, str), f"detectors = {self.detectors!r}: give a list of detectors")
        require(bool(self.policies) and bool(self.detectors), "give at least one policy and one detector")
        require(self.resamples >= MIN_RESAMPLES, f"resamples must be at least {MIN_RESAMPLES}")
        for name in ("limit", "steps", "workers"):
            require(getattr(self, name) >= 0, f"{name} must not be negative")
        check_latency(self.latency_ms)
        wanted, given = len(self.sources), len(self.syntheses)
        require(
            wanted == given, f"synthesis: {given} settings for {wanted} data sets; give one for each, or one for all"
        )

    @property
    def sources(self) -> list[Source]:
        """The data sets, each with the folder of its images."""
        return sources_of(self.data, self.images)

    @property
    def syntheses(self) -> list[SynthesisConfig | None]:
        """The synthesis of each data set as a `SynthesisConfig`, even if only the name of a light was given."""
        given = self.synthesis
        if given is None or isinstance(given, str | SynthesisConfig):
            given = [given] * len(self.sources)
        return [SynthesisConfig(each, seed=self.seed) if isinstance(each, str) else each for each in given]

    def recorded(self, size: int, place: int = 0) -> dict[str, Any]:
        """The settings that a report records; those of the synthesis are None where the images are raws.

        Args:
            size: the working size that was used.
            place: place of the data set among several.
        """
        synthesis = self.syntheses[place]
        return {
            "size": size,
            "steps": self.steps,
            "light": synthesis.light if synthesis else None,
            "draws": synthesis.draws if synthesis else None,
            "noise": synthesis.noise if synthesis else None,
            **(synthesis.recorded_sensor() if synthesis else dict.fromkeys(("bits", "camera_matrix", "illuminants"))),
            "seed": self.seed,
            "limit": self.limit,
            "camera_white_balance": self.camera_white_balance,
            "resamples": self.resamples,
            "device": self.device,
            "latency_ms": self.latency_ms,
        }

    @property
    def cost_table(self) -> str | None:
        """Name of the cost table for the provenance; None for the paper's."""
        if self.costs is None:
            return None
        return "EvalConfig.costs" if isinstance(self.costs, Mapping) else str(self.costs)
