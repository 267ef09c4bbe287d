"""Named settings of the step-wise actor-critic: what each changes and why."""

from dataclasses import dataclass, replace

from adaptiveisp.checkpoint import Start
from adaptiveisp.environment import HORIZON
from adaptiveisp.networks import ViewKind
from adaptiveisp.rl import Bootstrap


@dataclass(frozen=True)
class ActorCriticConfig:
    """Settings of a training run; every one is kept in the run folder.

    Attributes:
        module_set: named set the policy chooses from.
        bootstrap: "td" uses the next state's value, "greedy" does not.
        discount: γ on the next state's value.
        runtime_weight: λ, reward per millisecond of the chosen module's cost.
        loss_limit: the detector's loss is clipped here before differences are taken; None does not clip.
        batch: images a step advances.
        pool: part-processed images kept.
        horizon: steps of an episode.
        size: side of the square training images in pixels.
        actor_rate, selection_rate, critic_rate: learning rates of Adam at the start, of the parameter network, the
            selection network and the critic.
        normalise_advantage: centre and scale the advantage in each batch.
        entropy_bonus: weight of the selection's entropy in its loss, beside the penalty in the reward.
        rate_decay: powers of ten that the learning rates fall over the run.
        gradient_norm: gradients of each network are scaled down to this norm; None leaves them.
        view: "linear" as in the paper, or "log": what the networks see, see `networks.observe`.
        start: "raw", or "auto-exposure": its stages come first and the policy goes on from there.
        neutral_start: heads begin at parameters near each module's neutral ones.
        keep_stopped: images go on after the episode's end with this probability, as in the released code.
    """

    module_set: str = "paper"
    bootstrap: Bootstrap = "td"
    discount: float = 0.98
    runtime_weight: float = 0.0
    loss_limit: float | None = 1.0
    batch: int = 8
    pool: int = 128
    horizon: int = HORIZON
    size: int = 512
    actor_rate: float = 3e-5
    selection_rate: float = 3e-5
    critic_rate: float = 3e-5
    rate_decay: float = 3.0
    gradient_norm: float | None = None
    view: ViewKind = "linear"
    start: Start = "raw"
    neutral_start: bool = False
    keep_stopped: float = 0.0
    normalise_advantage: bool = False
    entropy_bonus: float = 0.0


PAPER = ActorCriticConfig()
"""The paper's method with the mended bootstrap; 100,000 iterations in the paper."""

RELEASED = replace(PAPER, module_set="released", bootstrap="greedy", discount=1.0, gradient_norm=1e-5, keep_stopped=0.5)
"""What the released code does with its default flags."""

CPU = replace(
    PAPER,
    module_set="wide",
    loss_limit=None,
    pool=64,
    size=320,
    actor_rate=5e-4,
    selection_rate=1e-4,
    critic_rate=1e-3,
    rate_decay=1.5,
    gradient_norm=1.0,
    view="log",
    start="auto-exposure",
    neutral_start=True,
    normalise_advantage=True,
    entropy_bonus=0.02,
)
"""A few thousand iterations instead of 100,000: larger steps, a start that is bright already, a view of the noise."""

PRESETS = {"paper": PAPER, "released": RELEASED, "cpu": CPU}
