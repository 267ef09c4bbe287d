"""Settings and presets of the sequence method."""

from dataclasses import dataclass, field, replace
from typing import Literal

from adaptiveisp.isp.costs import CLOCK, CostSetting, check_costs
from adaptiveisp.isp.registry import modules_of
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.policies.latency import check_latency
from adaptiveisp.policies.sequence.networks import Condition
from adaptiveisp.training.gradients import Precision
from adaptiveisp.training.methods.module_choice import MODULES_OF_FILES, check_choice, check_experts
from adaptiveisp.training.rl.rewards import DEFAULT_REWARD, REWARDS
from adaptiveisp.utils.config import renamed, require

Candidates = Literal["samples", "edits", "listed"]


@dataclass(frozen=True)
class SequenceConfig:
    """Settings of a run; every one is kept in the run folder.

    Attributes:
        module_set: named set that gives the ranges of the parameters.
        modules: names of the modules that may be chosen; empty for all of the set. A run writes them out.
        condition: "image" if the sequence depends on the image, "none" for one sequence for all images. The parameters
            depend on the image in both cases.
        preprocessing: heuristic whose stages run before the policy's own modules: "raw" for none, "auto-exposure" or
            "auto-gain".
        horizon: largest number of modules in a pipeline, those of the preprocessing not counted.
        batch: rendered images in an iteration, each of which is one pass through the detector.
        candidates: how the candidate pipelines of an image are drawn, "samples", "edits" or "listed"; see `learner.py`.
        pipelines: the candidates of every image with "listed", each a list of modules in their order.
        replays: further updates of the sequence head in each iteration with "listed", on images that were rendered
            before. Their rewards stay true only if the parameters do not learn (`rate` and `line_rate` 0).
        group_size: candidates of each image, with "listed" the number of `pipelines`. It is 1 in the imitation warm-up,
            unless `exploration` is above 0.
        exploration: standard deviation of the noise on the parameters, in units of z. With noise they learn from
            rewards alone by policy gradient, and the detector needs no gradient. At 0 the gradient goes straight
            through the detector.
        warm_start_like: module that the warm start's policy lacks → module of that policy whose weights it takes over;
            another new module starts near neutral.
        expert_modules: modules in the order in which the imitation warm-up runs them; () for none.
        imitation_warmup: share of the budget, from the start of the run, in which every image goes through the expert
            modules, or with "listed" through one of `pipelines` at random, and the sequence head imitates them.
        reward: name of a registered reward, see `register_reward`; "default" for the reward in `learner.py`.
        runtime_weight: λ, reward per millisecond of the modules' cost.
        costs: module → cost in milliseconds; "paper" or an empty table for the paper's; "clock" for one that the run
            measures on this machine, with one thread, and writes out here.
        latency_ms: X, most milliseconds of policy and modules for 95 % of the images on this machine, by the clock
            table that the run measures; None for no limit. See `training.latency`.
        policy_ms, step_ms: the policy's own time in that table, and what it grows by with each module that it chooses;
            a run fills them in.
        excess_ms: what 95 % of the images take beyond that table's sum, for a latency; a run fills it in.
        brightness_weight: penalty per unit of mean brightness outside [0.01, 0.9].
        colour_weight: penalty per unit of ΔE2000 from neutral, over what is grey in the clean photo. It needs raws made
            from photos (`--light`), as `highlight_weight` does.
        highlight_weight: penalty on an image that is burnt everywhere and is not in the clean photo; in proportion to
            the share that is burnt.
        size: side of the square training images in pixels. At 288 and `smallest_crop` 0.9, photos of 640x480 are
            reduced by about the same factor as in use at 416, so that as much of their noise is averaged away.
        smallest_crop: smallest side of a training crop, relative to the shorter side of the photo or raw.
        rate, sequence_rate: initial learning rates of Adam, the first for the encoder and the parameter head, the
            second for the sequence head.
        line_rate: initial learning rate of the linear terms from the observation's numbers to the parameters, in units
            of z. These terms hold what a module does to every image, and how that depends on light and noise.
        line_decay: weight decay of AdamW on these terms. It keeps a parameter near its neutral value where the
            gradients of different images mostly cancel.
        sequence_line_rate: initial learning rate of the linear terms from the same numbers to each module's logit,
            which make the choice of modules depend on light and noise.
        dropout: dropout rate of the parameter head's last hidden layer while training, in [0, 1).
        rate_decay: powers of ten by which the rates fall over the run.
        gradient_norm: largest norm of the gradient of either head; None for no limit.
        first_temperature, last_temperature: of the sequence head's softmax while sampling, at the start and at the end
            of the run. In between it changes by the same factor for each pass.
        entropy_bonus: weight of the sequence head's entropy in its loss.
        averaging: decay of the moving average of the weights, which is the policy that is scored and saved; 0 uses the
            weights themselves.
        sequence_averaging: the same for the sequence head. It is often smaller, because the average of two different
            choices keeps a module that the policy has already given up.
        precision: of the detector's network while training.
    """

    module_set: str = "extended"
    modules: tuple[str, ...] = ()
    condition: Condition = "image"
    preprocessing: Preprocessing = renamed("start", default="auto-exposure")
    horizon: int = 9
    batch: int = 8
    candidates: Candidates = renamed("rivals", default="edits")
    pipelines: tuple[tuple[str, ...], ...] = ()
    replays: int = 0
    group_size: int = renamed("group", default=2)
    exploration: float = 0.0
    expert_modules: tuple[str, ...] = renamed("demonstrated", default=())
    imitation_warmup: float = renamed("demonstration", default=0.0)
    warm_start_like: dict[str, str] = field(default_factory=dict)
    reward: str = DEFAULT_REWARD
    runtime_weight: float = 0.0
    costs: CostSetting = field(default_factory=dict)
    latency_ms: float | None = None
    policy_ms: float = 0.0
    step_ms: float = 0.0
    excess_ms: float = 0.0
    brightness_weight: float = 1.0
    colour_weight: float = 0.0
    highlight_weight: float = 0.0
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

    @property
    def chosen(self) -> tuple[str, ...]:
        """Names of the modules that may be chosen, in the order of their action ids."""
        return self.modules or tuple(module.name for module in modules_of(self.module_set))

    def __post_init__(self) -> None:
        require(0 < self.smallest_crop <= 1, "smallest_crop must be above 0 and at most 1")
        REWARDS.find(self.reward)
        narrow = self.preprocessing == "auto-exposure" and self.module_set in ("paper", "released", "pos-isp")
        require(
            not narrow,
            "preprocessing auto-exposure needs wider ranges than this module_set has; set module_set=wide too",
        )
        check_choice(self.module_set, self.modules)
        check_choice(self.module_set, self.expert_modules, "expert_modules")
        chosen = self.chosen
        check_experts(self.expert_modules, chosen)
        require(
            len(self.expert_modules) <= self.horizon, f"expert_modules is longer than the horizon of {self.horizon}"
        )
        require(
            not self.imitation_warmup or len(self.expert_modules) > 0 or self.candidates == "listed",
            "imitation_warmup needs expert_modules: names of modules",
        )
        self._check_pipelines()
        for name in ("horizon", "batch", "size"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1")
        require(
            self.group_size >= 2 and self.batch % self.group_size == 0,
            f"group_size must be 2 or more, and batch a multiple of it: {self.batch}",
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
            "colour_weight",
            "highlight_weight",
            "exploration",
        ):
            require(getattr(self, name) >= 0, f"{name} must not be negative")
        explores = self.candidates == "samples" and self.group_size % 2 == 0
        require(not self.exploration or explores, "exploration needs candidates=samples and an even group_size")
        require(0 <= self.imitation_warmup <= 1, "imitation_warmup must be in 0 to 1")
        require(0 <= self.dropout < 1, "dropout must be at least 0 and below 1")
        for name in ("averaging", "sequence_averaging"):
            require(0 <= getattr(self, name) < 1, f"{name} must be at least 0 and below 1")
        require(self.first_temperature > 0 and self.last_temperature > 0, "temperatures must be positive")
        require(self.gradient_norm is None or self.gradient_norm > 0, "gradient_norm must be positive, or null")
        check_costs(self.costs, chosen)
        check_latency(self.latency_ms, self.policy_ms, self.step_ms, self.excess_ms)

    def _check_pipelines(self) -> None:
        """Refuses candidates that are listed but not used, used but not listed, or not possible."""
        if self.candidates != "listed":
            require(not self.pipelines and not self.replays, "pipelines and replays need candidates=listed")
            return
        require(self.replays >= 0, "replays must not be negative")
        require(not self.replays or not self.sets_parameters, "replays needs rate=0 and line_rate=0")
        count = len(self.pipelines)
        require(count >= 2, "candidates=listed needs two pipelines or more, as pipelines: [[a, b], [a, c]]")
        require(len(set(self.pipelines)) == count, "pipelines names a pipeline twice")
        require(
            self.group_size == count, f"group_size must be the number of pipelines, {count}, and batch a multiple of it"
        )
        for pipeline in self.pipelines:
            check_choice(self.module_set, pipeline, "pipelines")
            for name in pipeline:
                require(name in self.chosen, f"pipelines names {name}, which modules lacks; add it to modules")
            require(
                len(pipeline) <= self.horizon, f"a pipeline of pipelines is longer than the horizon of {self.horizon}"
            )


ADAPTIVE = SequenceConfig(
    module_set="extended",
    modules=MODULES_OF_FILES["extended"],
    expert_modules=("denoise", "white_balance", "exposure", "local_tone", "ccm", "gamma", "tone", "sharpen"),
    imitation_warmup=0.6,
    runtime_weight=0.02,
    costs=CLOCK,
)
"""Begins with the modules of a camera in their usual order, after auto-exposure, and learns to leave out those that an
image does not need."""

FAST = replace(
    ADAPTIVE,
    preprocessing="auto-gain",
    horizon=2,
    expert_modules=("local_tone", "denoise"),
    sequence_rate=1e-3,
    sequence_line_rate=0.03,
    sequence_averaging=0.98,
)
"""Three modules: one gain for white balance and exposure, local tone mapping for the shadows, and a denoiser."""

POS = SequenceConfig(
    module_set="wide",
    condition="none",
    candidates="samples",
    horizon=10,
    first_temperature=2.5,
    last_temperature=0.2,
    costs=CLOCK,
)
"""POS-ISP as far as its paper specifies it: one sequence for all images, a uniform initial distribution, and a
temperature that falls from 2.5 to 0.2."""

FEWER = replace(
    ADAPTIVE,
    expert_modules=(),
    imitation_warmup=0.0,
    runtime_weight=0.012,
    rate=1e-4,
    line_rate=0.01,
    sequence_rate=1e-3,
    sequence_line_rate=0.03,
    sequence_averaging=0.98,
)
"""Continues a run of `ADAPTIVE` (it needs a warm start) and leaves out modules that cost more than they gain."""

SAMPLED = replace(ADAPTIVE, candidates="samples", group_size=4, exploration=0.1)
"""For detectors without a gradient: the parameters are sampled and learn from rewards alone."""

PRESETS = {
    "adaptive": ADAPTIVE,
    "fast": FAST,
    "fewer": FEWER,
    "one-sequence": replace(ADAPTIVE, condition="none"),
    "pos": POS,
    "sampled": SAMPLED,
}
