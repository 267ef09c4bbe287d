"""Settings and presets of the step-wise actor-critic."""

from dataclasses import dataclass, field, replace

from adaptiveisp.data.random_crop import SMALLEST_CROP
from adaptiveisp.isp.costs import CLOCK, CostSetting, check_costs
from adaptiveisp.isp.registry import find_module, modules_of
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.policies.environment import HORIZON
from adaptiveisp.policies.latency import check_latency
from adaptiveisp.policies.stepwise.networks import ObservationKind
from adaptiveisp.training.gradients import Precision
from adaptiveisp.training.methods.module_choice import check_choice, check_experts
from adaptiveisp.training.rl.losses import Bootstrap
from adaptiveisp.training.rl.pipeline_edits import Candidates
from adaptiveisp.training.rl.rewards import DEFAULT_REWARD, ENTROPY_WEIGHT, REWARDS
from adaptiveisp.utils.config import renamed, require


@dataclass(frozen=True)
class ActorCriticConfig:
    """Settings of a training run; every one is kept in the run folder.

    Attributes:
        module_set: named set that gives the ranges of the parameters.
        modules: names of the modules that may be chosen, in the order of their action ids; empty for all of the set. A
            run writes them out.
        bootstrap: "td" adds the next state's value to the target, "greedy" does not.
        discount: γ, factor on the next state's value, in [0, 1].
        reward: name of a registered reward that replaces the detection and runtime terms, see `register_reward`;
            "default" for the paper's reward.
        runtime_weight: λ, reward per millisecond of the chosen module's cost.
        costs: module → cost in milliseconds; "paper" or an empty table for the paper's; "clock" for one that the run
            measures on this machine, with one thread, and writes out here.
        latency_ms: X, most milliseconds of policy and modules for 95 % of the images on this machine, by the clock
            table that the run measures; None for no limit. See `training.latency`.
        policy_ms, step_ms: the policy's own time in that table, and what it grows by with each module that it chooses;
            a run fills them in.
        excess_ms: what 95 % of the images take beyond that table's sum, for a latency; a run fills it in.
        loss_limit: upper limit of the detector's loss before differences are taken; None for no limit.
        batch: rollouts in an iteration. At `group_size` 1 each is of another image.
        group_size: rollouts of the same image in a batch. Above 1, the mean return of an image's other rollouts
            replaces the critic's value as the baseline, so that the difficulty of an image does not change the
            advantage.
        candidates: how the rollouts of an image differ: with "samples" all are drawn from the policy; with "edits" the
            first is drawn, and the others are its sequence with one module removed, inserted or moved. "edits" needs
            whole episodes, group_size above 1, no_repeat and stop.
        replay_size: partly processed images in the replay buffer.
        horizon: steps of an episode.
        rollout: steps of an image in one iteration, after which the detector's loss is taken. The paper has 1. With
            more, one pass gives a gradient for the parameters of all modules that ran.
        expert_modules: modules in the order in which the imitation warm-up runs them; () for none.
        imitation_warmup: share of the budget, from the start of the run, in which every image goes through the expert
            modules. The selection imitates them (and then stops), while the parameters of all of them learn from each
            pass.
        last_temperature: of the selection's softmax at the end of the run. It falls from 1 by the same factor for each
            pass, so that towards the end the parameters fit the pipelines that the final policy chooses.
        size: side of the square training images in pixels.
        smallest_crop: smallest side of a training crop, relative to the shorter side of the photo or raw.
        actor_rate, selection_rate, critic_rate: initial learning rates of Adam, of the parameter network, the selection
            network and the critic.
        bias_rate: initial learning rate of the last biases of the parameter heads, in units of z. They hold what a
            module does to every image, like the parameters of a fixed pipeline. None takes actor_rate.
        rate_decay: powers of ten by which the learning rates fall over the run.
        gradient_norm: largest norm of the gradients of actor and critic; None for no limit.
        clip_apart: limits the norm of the actor's two networks separately. Otherwise the parameters' gradient, which is
            the larger one, sets the step of the selection.
        observation: input of the networks, "linear" as in the paper or "log"; see `stepwise.networks.observe`.
        preprocessing: heuristic whose stages run before the policy's own modules: "raw" for none, "auto-exposure" or
            "auto-gain".
        neutral_start: initialises the parameter heads near the neutral parameters of each module.
        frozen_batchnorm: batch norm keeps the statistics of the first images, measured on random pipelines, and does
            not use those of each batch. After a warm start it keeps those of the initial policy.
        no_repeat: a module that ran cannot be chosen again in the episode. In the paper it can, for a penalty.
        stop: the policy may also choose to end the episode, at no cost.
        averaging: decay of the moving average of the weights, which is the policy that is scored and saved; 0 uses the
            weights themselves.
        overtime: steps that an image stays in the replay buffer after the end of its episode. The released code drops
            images after step 7.
        keep_stopped: probability that an image stays after that, as in the released code.
        reset_batch: replaces the whole batch by new images after a step that makes the mean of one image darker than
            0.01, brighter than 0.9 or NaN, as in the released code. Otherwise only invalid images are dropped.
        precision: of the detector's network while training; its loss, the modules and the policy stay in "float32".
            "bfloat16" takes half the time on processors with matrix units for it, and "auto" uses it where
            these are present.
        normalise_advantage: centres and scales the advantage in each batch.
        entropy_weight: weight of the entropy penalty in the reward, 0.05 in the paper. Through q it also reaches the
            selection directly, summed over the steps of a rollout.
        entropy_bonus: weight of the selection's entropy in its loss, in addition to the penalty in the reward.
    """

    module_set: str = "paper"
    modules: tuple[str, ...] = ()
    bootstrap: Bootstrap = "td"
    discount: float = 0.98
    reward: str = DEFAULT_REWARD
    runtime_weight: float = 0.0
    costs: CostSetting = field(default_factory=dict)
    latency_ms: float | None = None
    policy_ms: float = 0.0
    step_ms: float = 0.0
    excess_ms: float = 0.0
    loss_limit: float | None = 1.0
    batch: int = 8
    group_size: int = renamed("peers", default=1)
    candidates: Candidates = renamed("rivals", default="samples")
    replay_size: int = renamed("pool", default=128)
    horizon: int = HORIZON
    rollout: int = 1
    expert_modules: tuple[str, ...] = renamed("demonstrated", default=())
    imitation_warmup: float = renamed("demonstration", default=0.0)
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
    observation: ObservationKind = renamed("view", default="linear")
    preprocessing: Preprocessing = renamed("start", default="raw")
    neutral_start: bool = False
    frozen_batchnorm: bool = renamed("calibrated", default=False)
    no_repeat: bool = renamed("once", default=False)
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
        REWARDS.find(self.reward)
        check_choice(self.module_set, self.modules)
        check_costs(self.costs, self.chosen)
        check_latency(self.latency_ms, self.policy_ms, self.step_ms, self.excess_ms)
        require(
            self.latency_ms is None or self.rollout >= self.horizon,
            "latency_ms needs whole episodes: set rollout to the horizon",
        )
        for name in ("batch", "group_size", "replay_size", "horizon", "rollout", "size"):
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
        for name in ("discount", "imitation_warmup", "keep_stopped"):
            require(0 <= getattr(self, name) <= 1, f"{name} must be in 0 to 1")
        require(0 < self.last_temperature <= 1, "last_temperature must be above 0 and at most 1")
        require(0 <= self.averaging < 1, "averaging must be at least 0 and below 1")
        require(self.overtime >= 0, "overtime must not be negative")
        require(self.gradient_norm is None or self.gradient_norm > 0, "gradient_norm must be positive, or null")
        require(self.replay_size >= self.batch, f"replay_size must be at least the batch: {self.batch}")
        narrow = self.preprocessing == "auto-exposure" and self.module_set in ("paper", "released", "pos-isp")
        require(
            not narrow,
            "preprocessing auto-exposure needs wider ranges than this module_set has; set module_set=wide too",
        )
        groups = f"batch must be a multiple of group_size: {self.batch}, {self.group_size}"
        require(self.batch % self.group_size == 0, groups)
        whole = self.rollout >= self.horizon and self.group_size > 1 and self.no_repeat and self.stop
        require(
            self.candidates == "samples" or whole,
            "candidates=edits needs a rollout of the horizon, group_size above 1, no_repeat and stop",
        )
        if self.imitation_warmup:
            self._check_expert_modules()
        lasting = self.stop and (self.overtime > 0 or self.keep_stopped > 0)
        require(not lasting, "stop needs overtime=0 and keep_stopped=0, since stopped images leave at once")

    @property
    def chosen(self) -> tuple[str, ...]:
        """Names of the modules that may be chosen, in the order of their action ids."""
        return self.modules or tuple(module.name for module in modules_of(self.module_set))

    def _check_expert_modules(self) -> None:
        names, horizon = self.expert_modules, self.horizon
        require(len(names) > 0, "imitation_warmup needs expert_modules: names of modules")
        for name in names:
            find_module(name, self.module_set)
        check_experts(names, self.chosen)
        require(len(names) <= horizon, f"expert_modules has {len(names)} modules, more than the horizon of {horizon}")
        ends = self.stop or len(names) == horizon
        short = f"expert_modules has {len(names)} modules, fewer than the horizon of {horizon}"
        require(ends, f"{short}: set stop too, or imitation_warmup=0 for a run without it")
        unique = len(set(names)) == len(names)
        require(not self.no_repeat or unique, "expert_modules names a module twice, which no_repeat rules out")
        lasting = self.overtime > 0 or self.keep_stopped > 0
        require(not lasting, "imitation_warmup needs overtime=0 and keep_stopped=0")


PAPER = ActorCriticConfig()
"""The paper's method with a bootstrap that works; the paper trains for 100,000 iterations."""

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
"""The behaviour of the released code with its default flags."""

CPU = replace(
    PAPER,
    module_set="wide",
    discount=1.0,
    loss_limit=None,
    replay_size=64,
    size=320,
    preprocessing="auto-exposure",
    observation="log",
    neutral_start=True,
    frozen_batchnorm=True,
    expert_modules=("denoise", "white_balance", "exposure", "ccm", "gamma", "contrast", "sharpen"),
    imitation_warmup=0.6,
    horizon=8,
    rollout=8,
    group_size=4,
    no_repeat=True,
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
    costs=CLOCK,
)
"""For some hundred iterations instead of 100,000: auto-exposure first, an imitation warm-up with a camera's modules,
whole episodes in each iteration, larger learning rates, and an observation that contains the noise level."""

PRESETS = {"cpu": CPU, "paper": PAPER, "released": RELEASED}
