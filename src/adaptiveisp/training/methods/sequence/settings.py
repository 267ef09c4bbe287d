"""Named settings of the sequence policies: what each changes and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from adaptiveisp.isp.registry import find_module, modules_of
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.policies.sequence.networks import Condition
from adaptiveisp.training.methods.learner import Precision
from adaptiveisp.training.rl.pipeline_edits import Rivals
from adaptiveisp.utils.config import require


@dataclass(frozen=True)
class SequenceConfig:
    """Settings of a run; every one is kept in the run folder.

    Attributes:
        module_set: named set whose ranges the parameters keep.
        modules: names of what may be chosen; empty for all of the set.
        condition: "image", or "none" for one sequence for all images; parameters depend on the image either way.
        start: "raw", "auto-exposure" or "auto-gain": what comes first, see `policies.STARTS`.
        horizon: most modules of a pipeline, the start's not counted.
        batch: renderings an iteration, each a pass of the detector.
        rivals: how an image's rivals are found, see above.
        group: rivals of each image; 1 while demonstrating, unless they explore.
        exploration: standard deviation of noise on the parameters, in units of z. With it they learn from rewards
            alone, by policy gradient, and the detector needs no gradient; 0 differentiates straight through it.
        demonstrated: modules in an order, for the demonstration; () for none.
        demonstration: share of the budget in which every image goes through them.
        runtime_weight: λ, reward per millisecond of the modules' cost.
        costs: module → milliseconds, for that; empty for the paper's table.
        brightness_weight: reward per unit of mean brightness outside [0.01, 0.9].
        size: side of the square training images in pixels. 288 with crops of 0.9 and more shows photos of 640x480 as
            far reduced as the detector sees them at 416: with as much of their noise averaged away.
        smallest_crop: side of the crop that they show, relative to the shorter side of the photo or raw, at least.
        rate, sequence_rate: learning rates of Adam at the start, of encoder and parameter head and of the other one.
        line_rate: of the straight lines from the observation's numbers to the parameters, in units of z: what a module
            does to any image, and how that goes with light and noise.
        line_decay: of AdamW on these lines: a parameter whose gradients mostly cancel stays near neutral, where chance
            would carry it off.
        sequence_line_rate: of the straight lines from the same numbers to each module's logit: which modules the dark
            wants, and which the light.
        dropout: share of the parameter head's last hidden layer that is dropped while training: what keeps parameters
            from following single images.
        rate_decay: powers of ten that the rates fall over the run.
        gradient_norm: gradients of either part are scaled down to this norm; None leaves them.
        first_temperature, last_temperature: of the sequence head's softmax while sampling, at the start and the end of
            the run, falling by the same factor for each pass.
        entropy_bonus: weight of the sequence head's entropy in its loss.
        averaging: the policy that is scored and saved has weights averaged over the iterations, each new one with the
            weight 1 - averaging; 0 takes the weights as they are.
        sequence_averaging: the same for the sequence head, which says one thing or another: a mean over both says
            for long what has been given up.
        precision: of the detector's network while training.
    """

    module_set: str = "extended"
    modules: tuple[str, ...] = ()
    condition: Condition = "image"
    start: Preprocessing = "auto-exposure"
    horizon: int = 9
    batch: int = 8
    rivals: Rivals = "edits"
    group: int = 2
    exploration: float = 0.0
    demonstrated: tuple[str, ...] = ()
    demonstration: float = 0.0
    runtime_weight: float = 0.0
    costs: Mapping[str, float] = field(default_factory=dict)
    brightness_weight: float = 1.0
    size: int = 288
    smallest_crop: float = 0.9
    rate: float = 3e-4
    sequence_rate: float = 2e-4
    line_rate: float = 0.03
    line_decay: float = 0.2
    sequence_line_rate: float = 0.0
    dropout: float = 0.0
    rate_decay: float = 1.5
    gradient_norm: float | None = 1.0
    first_temperature: float = 1.0
    last_temperature: float = 1.0
    entropy_bonus: float = 0.0
    averaging: float = 0.995
    sequence_averaging: float = 0.995
    precision: Precision = "auto"

    @property
    def sets_parameters(self) -> bool:
        """Whether parameters learn; with neither `rate` nor `line_rate` only the choice of modules does."""
        return self.rate > 0 or self.line_rate > 0

    def __post_init__(self) -> None:
        require(0 < self.smallest_crop <= 1, "smallest_crop must be above 0 and at most 1")
        names = [module.name for module in modules_of(self.module_set)]
        narrow = self.start == "auto-exposure" and self.module_set in ("paper", "released")
        require(not narrow, "start auto-exposure needs wider ranges than this module_set has; set module_set=wide too")
        for name in (*self.modules, *self.demonstrated):
            find_module(name, self.module_set)
            require(name in names, f"{name} is a helper, which no policy chooses")
        chosen = self.modules or tuple(names)
        require(len(set(chosen)) == len(chosen), "modules names one twice")
        require(len(set(self.demonstrated)) == len(self.demonstrated), "demonstrated names a module twice")
        require(set(self.demonstrated) <= set(chosen), "demonstrated names a module that modules lacks")
        require(len(self.demonstrated) <= self.horizon, f"demonstrated is longer than the horizon of {self.horizon}")
        require(
            not self.demonstration or len(self.demonstrated) > 0, "demonstration needs demonstrated: names of modules"
        )
        for name in ("horizon", "batch", "size"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1")
        require(
            self.group >= 2 and self.batch % self.group == 0,
            f"group must be 2 or more, and batch a multiple: {self.batch}",
        )
        for name in (
            "rate",
            "sequence_rate",
            "line_rate",
            "line_decay",
            "sequence_line_rate",
            "rate_decay",
            "runtime_weight",
            "entropy_bonus",
            "brightness_weight",
            "exploration",
        ):
            require(getattr(self, name) >= 0, f"{name} must not be negative")
        explores = self.rivals == "samples" and self.group % 2 == 0
        require(not self.exploration or explores, "exploration needs rivals=samples and an even group")
        require(0 <= self.demonstration <= 1, "demonstration must be in 0 to 1")
        require(0 <= self.dropout < 1, "dropout must be at least 0 and below 1")
        for name in ("averaging", "sequence_averaging"):
            require(0 <= getattr(self, name) < 1, f"{name} must be at least 0 and below 1")
        require(self.first_temperature > 0 and self.last_temperature > 0, "temperatures must be positive")
        require(self.gradient_norm is None or self.gradient_norm > 0, "gradient_norm must be positive, or null")
        for name in chosen:
            require(not self.costs or name in self.costs, f"costs lacks the module {name}")
        for name, cost in self.costs.items():
            require(cost >= 0, f"costs: {name} must not be negative")


ADAPTIVE = SequenceConfig(
    module_set="extended",
    demonstrated=("denoise", "white_balance", "exposure", "local_tone", "ccm", "gamma", "tone", "sharpen"),
    demonstration=0.6,
    runtime_weight=0.02,
)
"""From a camera's order of modules, after auto-exposure; a module that is worth nothing to an image is left out."""

FAST = replace(
    ADAPTIVE,
    start="auto-gain",
    horizon=2,
    demonstrated=("local_tone", "denoise"),
    sequence_rate=1e-3,
    sequence_line_rate=0.03,
    sequence_averaging=0.98,
)
"""Three modules in all: balance and exposure as one, shadows lifted, noise taken away."""

POS = SequenceConfig(
    module_set="wide",
    condition="none",
    rivals="samples",
    horizon=10,
    first_temperature=2.5,
    last_temperature=0.2,
)
"""As near to POS-ISP as its paper says: one sequence for all images, from a uniform start, temperature 2.5 to 0.2."""

FEWER = replace(
    ADAPTIVE,
    demonstrated=(),
    demonstration=0.0,
    runtime_weight=0.012,
    rate=1e-4,
    line_rate=0.01,
    sequence_rate=1e-3,
    sequence_line_rate=0.03,
    sequence_averaging=0.98,
)
"""For a warm start from a run of `ADAPTIVE`: what costs more than it gives is left out."""

SAMPLED = replace(ADAPTIVE, rivals="samples", group=4, exploration=0.1)
"""For detectors without a gradient: parameters are sampled and learn from rewards alone."""

PRESETS = {
    "adaptive": ADAPTIVE,
    "fast": FAST,
    "fewer": FEWER,
    "one-sequence": replace(ADAPTIVE, condition="none"),
    "pos": POS,
    "sampled": SAMPLED,
}
