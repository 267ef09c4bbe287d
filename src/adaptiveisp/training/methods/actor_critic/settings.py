"""Named settings of the step-wise actor-critic: what each changes and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from adaptiveisp.data.random_crop import SMALLEST_CROP
from adaptiveisp.isp.registry import find_module, modules_of
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.policies.environment import HORIZON
from adaptiveisp.policies.stepwise.networks import ObservationKind
from adaptiveisp.training.methods.learner import Precision
from adaptiveisp.training.rl.losses import Bootstrap
from adaptiveisp.training.rl.pipeline_edits import Rivals
from adaptiveisp.training.rl.rewards import ENTROPY_WEIGHT
from adaptiveisp.utils.config import require


@dataclass(frozen=True)
class ActorCriticConfig:
    """Settings of a training run; every one is kept in the run folder.

    Attributes:
        module_set: named set the policy chooses from.
        bootstrap: "td" uses the next state's value, "greedy" does not.
        discount: γ on the next state's value.
        runtime_weight: λ, reward per millisecond of the chosen module's cost.
        costs: module → milliseconds, for that; empty for the paper's table.
        loss_limit: the detector's loss is clipped here before differences are taken; None does not clip.
        batch: rollouts in an iteration; without peers that is as many images.
        peers: rollouts of the same image in a batch. With more than one, the mean return of the others is the baseline
            of each, in the place of the critic's value: how hard an image is then says nothing against a module.
        rivals: how peers differ: "samples" are all drawn from the policy; of "edits" the first is, the others are its
            sequence with one module left out, put in or moved. Edits need whole episodes, peers, `once` and `stop`.
        pool: part-processed images kept.
        horizon: steps of an episode.
        rollout: steps that an image takes before the detector looks at it. 1 as in the paper; with more, one pass gives
            a gradient for the parameters of several modules, in the order they run in.
        size: side of the square training images in pixels.
        smallest_crop: side of the crop that they show, relative to the shorter side of the photo or raw, at least.
        actor_rate, selection_rate, critic_rate: learning rates of Adam at the start, of the parameter network, the
            selection network and the critic.
        bias_rate: learning rate of the parameter heads' last biases, in units of z: what a module does to any image,
            as a fixed pipeline's parameters; None takes actor_rate.
        demonstrated: modules in an order, such as a camera's; () for none. At first every image goes through them: the
            selection imitates them (and stops behind them), while all their parameters learn from each pass.
        demonstration: share of the budget in which it is so.
        last_temperature: of the selection's softmax at the end of the run; it falls from 1, by the same factor for each
            pass, so that parameters come to fit the pipelines that are chosen in the end.
        normalise_advantage: centre and scale the advantage in each batch.
        entropy_weight: of the entropy penalty in the reward, 0.05 in the paper. It reaches the selection straight
            through q, summed over the steps of a rollout, beside an advantage that may be normalised.
        entropy_bonus: weight of the selection's entropy in its loss, beside the penalty in the reward.
        rate_decay: powers of ten that the learning rates fall over the run.
        gradient_norm: gradients of actor and critic are scaled down to this norm; None leaves them.
        clip_apart: the norm holds for the actor's two networks each, not for both together, where the parameters'
            gradient, which is the larger one, says how far the selection moves.
        view: "linear" as in the paper, or "log": what the networks see, see `networks.observe`.
        start: "raw", "auto-exposure" or "auto-gain": what comes first, see `policies.STARTS`.
        neutral_start: heads begin at parameters near each module's neutral ones.
        precision: of the detector's network while training; its loss, modules and policy stay in "float32". "bfloat16"
            takes half the time on processors that have it, "auto" takes it there only.
        calibrated: batch norm keeps the statistics of the first images, on their way through random modules, in the
            place of those of each batch; after a warm start, those of the policy it started from.
        once: modules that ran are ruled out for the rest of the episode; in the paper they only cost a penalty.
        stop: the policy may also choose to end the episode, which costs nothing.
        averaging: the policy that is scored and saved has weights averaged over the iterations, each new one with the
            weight 1 - averaging; 0 takes the weights as they are.
        overtime: steps that an image stays in the pool after its episode's end; the released code drops images past 7.
        keep_stopped: after that it still stays with this probability, as in the released code.
        reset_batch: a step that makes one image's mean darker than 0.01 or brighter than 0.9 (or NaN) replaces the
            whole batch by fresh images, as in the released code; without it only invalid images are dropped.
    """

    module_set: str = "paper"
    bootstrap: Bootstrap = "td"
    discount: float = 0.98
    runtime_weight: float = 0.0
    costs: Mapping[str, float] = field(default_factory=dict)
    loss_limit: float | None = 1.0
    batch: int = 8
    peers: int = 1
    rivals: Rivals = "samples"
    pool: int = 128
    horizon: int = HORIZON
    rollout: int = 1
    demonstrated: tuple[str, ...] = ()
    demonstration: float = 0.0
    last_temperature: float = 1.0
    size: int = 512
    smallest_crop: float = SMALLEST_CROP
    actor_rate: float = 3e-5
    bias_rate: float | None = None
    selection_rate: float = 3e-5
    critic_rate: float = 3e-5
    rate_decay: float = 3.0
    gradient_norm: float | None = None
    clip_apart: bool = False
    view: ObservationKind = "linear"
    start: Preprocessing = "raw"
    neutral_start: bool = False
    calibrated: bool = False
    once: bool = False
    stop: bool = False
    averaging: float = 0.0
    overtime: int = 0
    keep_stopped: float = 0.0
    reset_batch: bool = False
    precision: Precision = "float32"
    normalise_advantage: bool = False
    entropy_weight: float = ENTROPY_WEIGHT
    entropy_bonus: float = 0.0

    def __post_init__(self) -> None:
        require(0 < self.smallest_crop <= 1, "smallest_crop must be above 0 and at most 1")
        for module in modules_of(self.module_set):
            require(not self.costs or module.name in self.costs, f"costs lacks the module {module.name}")
        for name, cost in self.costs.items():
            require(cost >= 0, f"costs: {name} must not be negative")
        for name in ("batch", "peers", "pool", "horizon", "rollout", "size"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1")
        for name in (
            "actor_rate",
            "selection_rate",
            "critic_rate",
            "rate_decay",
            "runtime_weight",
            "entropy_weight",
            "entropy_bonus",
        ):
            require(getattr(self, name) >= 0, f"{name} must not be negative")
        require(self.bias_rate is None or self.bias_rate >= 0, "bias_rate must not be negative; null takes actor_rate")
        require(self.loss_limit is None or self.loss_limit > 0, "loss_limit must be positive; null does not clip")
        for name in ("discount", "demonstration", "keep_stopped"):
            require(0 <= getattr(self, name) <= 1, f"{name} must be in 0 to 1")
        require(0 < self.last_temperature <= 1, "last_temperature must be above 0 and at most 1")
        require(0 <= self.averaging < 1, "averaging must be at least 0 and below 1")
        require(self.overtime >= 0, "overtime must not be negative")
        require(self.gradient_norm is None or self.gradient_norm > 0, "gradient_norm must be positive, or null")
        require(self.pool >= self.batch, f"pool must hold a batch at least: {self.batch}")
        narrow = self.start == "auto-exposure" and self.module_set in ("paper", "released")
        require(not narrow, "start auto-exposure needs wider ranges than this module_set has; set module_set=wide too")
        require(self.batch % self.peers == 0, f"batch must be a multiple of peers: {self.batch}, {self.peers}")
        whole = self.rollout >= self.horizon and self.peers > 1 and self.once and self.stop
        require(self.rivals == "samples" or whole, "rivals=edits needs rollout of the horizon, peers, once and stop")
        if self.demonstration:
            self._check_demonstrated()
        lasting = self.stop and (self.overtime > 0 or self.keep_stopped > 0)
        require(not lasting, "stop goes with overtime=0 and keep_stopped=0 only: what has stopped leaves the pool")

    def _check_demonstrated(self) -> None:
        names, horizon = self.demonstrated, self.horizon
        require(len(names) > 0, "demonstration needs demonstrated: names of modules")
        for name in names:
            find_module(name, self.module_set)
        require(len(names) <= horizon, f"demonstrated has {len(names)} modules, more than the horizon of {horizon}")
        ends = self.stop or len(names) == horizon
        short = f"demonstrated has {len(names)} modules, fewer than the horizon of {horizon}"
        require(ends, f"{short}: set stop too, or demonstration=0 for a run without it")
        require(
            not self.once or len(set(names)) == len(names), "demonstrated names a module twice, which once rules out"
        )
        lasting = self.overtime > 0 or self.keep_stopped > 0
        require(not lasting, "demonstration goes with overtime=0 and keep_stopped=0 only")


PAPER = ActorCriticConfig()
"""The paper's method with the mended bootstrap; 100,000 iterations in the paper."""

RELEASED = replace(
    PAPER,
    module_set="released",
    bootstrap="greedy",
    discount=1.0,
    gradient_norm=1e-5,
    overtime=3,
    keep_stopped=0.5,
    reset_batch=True,
)
"""What the released code does with its default flags."""

CPU = replace(
    PAPER,
    module_set="wide",
    discount=1.0,
    loss_limit=None,
    pool=64,
    size=320,
    start="auto-exposure",
    view="log",
    neutral_start=True,
    calibrated=True,
    demonstrated=("denoise", "white_balance", "exposure", "ccm", "gamma", "contrast", "sharpen"),
    demonstration=0.6,
    horizon=8,
    rollout=8,
    peers=4,
    once=True,
    stop=True,
    normalise_advantage=True,
    entropy_weight=0.0,
    entropy_bonus=0.01,
    actor_rate=1e-4,
    bias_rate=0.05,
    selection_rate=5e-5,
    critic_rate=2e-4,
    rate_decay=1.5,
    gradient_norm=1.0,
    clip_apart=True,
    averaging=0.995,
    precision="auto",
)
"""Some hundred iterations instead of 100,000: a start that is bright already, a camera's order of modules to begin
from, whole episodes between two looks of the detector, larger steps, a view of the noise."""

PRESETS = {"cpu": CPU, "paper": PAPER, "released": RELEASED}
