"""AdaptiveISP: a step-wise actor-critic that learns which module to run next, and with which parameters.

An iteration takes a batch of part-processed images out of a pool, advances each by one module that the actor samples,
and learns from how much the frozen detector's loss fell:

    reward r   = 100·(D(x_t) - D(x_{t+1})) - reuse - entropy - runtime             reward.py
    target q   = r + γ·V(x_{t+1}) while the episode goes on ("td"), or r ("greedy")  rl.py
    critic     : (q - V(x_t))²
    selection  : -(q - V(x_t))·ln π(module)      the advantage is a constant
    parameters : -q, differentiated straight through detector and module

Beyond the paper, each off in its presets:
- `rollout: n`: an image takes n steps before the detector looks. r is then known at the last of them, q runs back
  through the steps (rl.returns), and one pass gives a gradient for the parameters of all modules on the way.
- `peers: n`: n rollouts of each image; what the others came to takes the place of V as the selection's baseline.
- `rivals: edits`: of an image's peers the first is sampled, the others are that sequence with one module left out, put
  in or moved; the selection learns to order each pair (see sequence.py, where this is the rule).
- `demonstration`: for the first part of the budget every image goes through given modules, which the selection
  imitates; the parameters learn as always, the critic waits.
- `calibrated`: batch norm keeps the statistics of the first images.

Source: Wang et al. 2024 (AdaptiveISP); Sutton & Barto 2018, section 7.1 (n-step returns); Kool et al. 2019 (baselines
from other samples). What differs from the released code stands in docs/differences.md.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adaptiveisp.data.training_images import TrainingImage, TrainingImages
from adaptiveisp.policies.checkpoint import ACTOR_CRITIC, PolicyHeader, save_policy
from adaptiveisp.policies.environment import STOP, State, actions_of
from adaptiveisp.policies.preprocessing import preprocessed_image
from adaptiveisp.policies.stepwise.networks import observe, to_training
from adaptiveisp.policies.stepwise.policy import StepwisePolicy
from adaptiveisp.training.methods.actor_critic.metrics import measured
from adaptiveisp.training.methods.actor_critic.networks import Networks
from adaptiveisp.training.methods.actor_critic.settings import ActorCriticConfig
from adaptiveisp.training.methods.learner import (
    Clock,
    Metrics,
    NonFiniteLossError,
    detector_loss,
    differentiated_loss,
    finite_images,
)
from adaptiveisp.training.rl import rewards as terms
from adaptiveisp.training.rl.advantages import advantages, baseline, rewards
from adaptiveisp.training.rl.losses import (
    discounts,
    imitation_loss,
    neighbour_loss,
    parameter_loss,
    returns,
    selection_loss,
    value_loss,
)
from adaptiveisp.training.rl.pipeline_edits import MARGIN, Comparisons, edited
from adaptiveisp.training.rl.replay_buffer import ReplayBuffer, ReplayItem, stack, unstack
from adaptiveisp.training.rl.rollout import Rollout, RolloutConfig, roll_out
from adaptiveisp.types import Detector, Image

DOUBT = 0.1
"""Share of what is imitated that goes to all open actions alike."""
MOST_TRIALS = 50
"""Rollouts of a batch, each without the images that the one before made invalid, before the run gives up."""


class ActorCritic:
    """The learner: networks, optimisers, pool, and one `iterate` that advances all of them.

    Args:
        config: settings.
        stream: training images by number.
        detector: the frozen detector.
        budget: image passes through the detector after which the run is done.
        seed: fixes networks, sampling and dropout.
        device: where images and networks are, and the detector.
    """

    def __init__(
        self,
        config: ActorCriticConfig,
        stream: TrainingImages,
        detector: Detector,
        budget: int,
        seed: int,
        device: str = "cpu",
    ):
        self.config, self.stream, self.detector, self.budget = config, stream, detector, budget
        self.device = device
        self.modules = actions_of(config.module_set, config.stop)
        costs = [config.costs.get(module.name, module.cost_ms) for module in self.modules]
        self.costs = torch.tensor(costs, device=device)
        torch.manual_seed(seed)  # networks' first weights, and dropout later
        self.generator = torch.Generator().manual_seed(seed)
        self.networks = Networks(config, self.modules, device)
        self.actor, self.critic = self.networks.actor, self.networks.critic
        self.pool = ReplayBuffer(config.pool)
        self.comparisons = Comparisons(len(self.modules) - config.stop)
        self.iteration = 0
        self.passes = 0
        self.next_number = 0
        self.dropped = 0
        self.calibrated = not config.calibrated
        self.demonstrating = False  # of the iteration that runs

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, in [0, 1]."""
        return min(1.0, self.passes / self.budget)

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        return self.passes >= self.budget

    @property
    def peers(self) -> int:
        """Rollouts of each image; in a demonstration they would all be the same."""
        return 1 if self.demonstrating else self.config.peers

    @property
    def header(self) -> PolicyHeader:
        """What a policy file of this run says of itself."""
        config = self.config
        names = tuple(module.name for module in self.modules)
        origin = f"actor_critic, iteration {self.iteration}, {self.passes} detector passes"
        return PolicyHeader(
            kind=ACTOR_CRITIC,
            module_set=config.module_set,
            modules=names,
            horizon=config.horizon,
            view=config.view,
            start=config.start,
            once=config.once,
            origin=origin,
        )

    def policy(self) -> StepwisePolicy:
        """The policy as it stands; it looks at this learner's networks when it is first used, and never again."""
        return StepwisePolicy(self.header, self.networks.averaged.eval(), "actor_critic")

    def save_policy(self, folder: Path, stem: str, provenance: Mapping[str, Any]) -> None:
        """Writes STEM.safetensors, the critic with it; config.yaml beside it says where it came from."""
        networks = {"actor": self.networks.averaged, "critic": self.critic}
        save_policy(folder / f"{stem}.safetensors", self.header, networks)

    def warm_start(self, policy: str) -> None:
        """Takes the networks of a policy file or a run folder; optimisers, pool and budget start anew.

        Raises:
            WeightsError: there is no such policy file, or its modules, view or start are others than this run's.
        """
        self.networks.warm_start(policy, self.header)
        self.calibrated = True

    def iterate(self) -> tuple[Metrics, dict[str, float]]:
        """One iteration: its metrics, and the seconds of its parts.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite; no weight was changed by it.
        """
        clock = Clock.started()
        self.demonstrating = self.progress < self.config.demonstration
        self._fill(clock)
        if not self.calibrated:
            self._calibrate(clock)
        self.networks.to_training()
        entries, rollout = self._valid_rollout(self._take(), clock)
        before = self._losses_before(entries)
        clock.lap("detector forward")
        after = self._losses_after(before, rollout, entries, clock)

        gained = terms.detection_reward(before, after, self.config.loss_limit)
        parts = rewards(
            rollout, gained, self.costs, self.progress, self.config.runtime_weight, self.config.entropy_weight
        )
        target = self._returns(rollout, torch.stack(list(parts.values())).sum(dim=0))
        value = self.critic(rollout.steps[0].view)
        losses = {
            "selection": self._selection_loss(rollout, target, value),
            "parameters": parameter_loss(target[0]),  # all that follows, differentiated back to the first step
            "value": value_loss(target[0], value),
        }
        self._check(losses, entries, rollout)
        clock.lap("policy")

        norms = self.networks.learn(losses, self.progress, not self.demonstrating, clock)
        if self.config.reset_batch and _left_range(rollout.end.image):
            self.dropped += len(entries) // self.peers
        else:
            self._keep(unstack(entries, rollout.end, after.detach(), rollout.histories())[:: self.peers])
        self.iteration += 1
        self.networks.average(self.iteration)
        metrics = {
            "iteration": self.iteration,
            "passes": self.passes,
            **measured(rollout, parts, losses, norms, value, before, after.detach(), not self.demonstrating),
            "worth": {self.modules[index].name: worth for index, worth in self.comparisons.known.items()},
            "dropped": self.dropped,
        }
        clock.lap("bookkeeping")
        return metrics, clock.seconds

    def _fill(self, clock: Clock) -> None:
        """Fills the pool with fresh images."""
        for _ in range(self.pool.missing()):
            image = self.fresh(self.next_number)
            self.next_number += 1
            used = torch.zeros(len(self.modules), device=self.device)
            self.pool.put([ReplayItem(image.number, image.image, image.targets, used, 0.0, 0.0, None)])
        clock.lap("data")

    def fresh(self, number: int) -> TrainingImage:
        """The image of that number as it enters the pool, after the start's stages."""
        source = self.stream[number]
        image = preprocessed_image(source.image[None].to(self.device), self.config.start, self.config.module_set)[0]
        return TrainingImage(number, image, source.targets, source.light)

    def _calibrate(self, clock: Clock) -> None:
        """Gives batch norm the statistics of what the networks will see: the pool on its way through random modules."""
        views = []
        with torch.no_grad():
            self.actor.eval()
            for first in range(0, len(self.pool.entries), self.config.batch):
                state = stack(self.pool.entries[first : first + self.config.batch])
                rollout = self._to_the_end(state, clock)
                views += [step.view for step in rollout.steps]
        self.networks.calibrate(torch.cat(views))
        self.calibrated = True
        clock.lap("policy")

    def _take(self) -> list[ReplayItem]:
        """A batch from the pool: each image as many times as it has peers, one after the other."""
        entries = self.pool.take(self.config.batch // self.peers, self.generator)
        return [entry for entry in entries for _ in range(self.peers)]

    def _valid_rollout(self, entries: list[ReplayItem], clock: Clock) -> tuple[list[ReplayItem], Rollout]:
        """Some sampled steps of every entry; one that a module makes invalid is dropped, the others start anew."""
        peers = self.peers
        for _ in range(MOST_TRIALS):
            rollout = self._one_rollout(stack(entries), clock)
            valid = finite_images(rollout.end.image).view(-1, peers).all(dim=1).tolist()
            if all(valid):
                return entries, rollout
            if self.config.reset_batch:
                valid = [False] * len(valid)
            self.dropped += valid.count(False)
            entries = [entry for i, entry in enumerate(entries) if valid[i // peers]]
            if not entries:
                self._fill(clock)
                entries = self._take()
        batch = {"iteration": self.iteration, "images": rollout.start.image, "histories": rollout.histories()}
        message = f"the policy made images invalid {MOST_TRIALS} times in a row at iteration {self.iteration}"
        raise NonFiniteLossError(message, batch)

    def _one_rollout(self, state: State, clock: Clock) -> Rollout:
        config = self.config
        temperature = config.last_temperature**self.progress
        forced: Tensor | None = None
        if self.demonstrating:
            forced = torch.tensor([self._demonstrated_actions], device=self.device).expand(len(state.step), -1)
        elif config.rivals == "edits":
            forced = self._forced_rivals(state, clock)
        rules = RolloutConfig(config.rollout, config.horizon, config.view, config.once, temperature, forced)
        return roll_out(state, self.actor, self.modules, rules, self.generator, clock)

    @property
    def _demonstrated_actions(self) -> tuple[int, ...]:
        """Action ids of what is demonstrated."""
        names = [module.name for module in self.modules]
        return tuple(names.index(name) for name in (*self.config.demonstrated, *((STOP.name,) * self.config.stop)))

    @torch.no_grad()
    def _forced_rivals(self, state: State, clock: Clock) -> Int[Tensor, "batch steps"]:
        """For each image the sequence that the policy samples, and as many edits of it as it has further peers."""
        stop = len(self.modules) - 1
        firsts = torch.arange(0, len(state.step), self.peers, device=self.device)
        self.actor.eval()  # sampled as it would be used; dropout is for what learns
        temperature = self.config.last_temperature**self.progress
        drawn = self._to_the_end(state.rows(firsts), clock, temperature).sequences(end=stop)
        drawn = torch.nn.functional.pad(drawn, (0, self.config.horizon - drawn.shape[1]), value=stop)
        to_training(self.actor, fixed_statistics=self.config.calibrated)
        rows = [row for base in drawn.cpu() for row in (base, *edited(base, stop, self.peers - 1, self.generator))]
        return torch.stack(rows).to(self.device)

    def _to_the_end(self, state: State, clock: Clock, temperature: float = 1.0) -> Rollout:
        """Sampled steps to the end of the episode, whatever the settings of rollout and demonstration."""
        rules = RolloutConfig(self.config.horizon, self.config.horizon, self.config.view, self.config.once, temperature)
        return roll_out(state, self.actor, self.modules, rules, self.generator, clock)

    def _losses_before(self, entries: Sequence[ReplayItem]) -> Float[Tensor, " batch"]:
        """The detector's loss of each image as it is; it costs a pass for those that it never looked at.

        In a demonstration, where nothing is compared, it is not looked at, and 0.
        """
        known = {entry.number: entry.loss for entry in entries}
        unknown = {entry.number: entry for entry in entries if entry.loss is None}
        if self.demonstrating:
            known |= dict.fromkeys(unknown, 0.0)
        elif unknown:
            image = torch.stack([entry.image for entry in unknown.values()])
            targets = [entry.targets for entry in unknown.values()]
            with torch.no_grad():
                losses = detector_loss(self.detector, image, targets, self.config.precision)
            self.passes += len(unknown)
            known |= dict(zip(unknown, losses.tolist(), strict=True))
        return torch.tensor([known[entry.number] for entry in entries], device=self.device)

    def _losses_after(
        self, before: Tensor, rollout: Rollout, entries: Sequence[ReplayItem], clock: Clock
    ) -> Float[Tensor, " batch"]:
        """The detector's loss of each image at the end; those that no module changed keep theirs, without a pass."""
        moved = rollout.moved.nonzero(as_tuple=True)[0]
        if not len(moved):
            return before
        image = rollout.end.rows(moved).image
        targets = [entries[i].targets for i in moved.tolist()]
        losses = differentiated_loss(self.detector, image, targets, self.config.precision, clock)
        self.passes += len(moved)
        return before.index_copy(0, moved, losses)

    def _returns(self, rollout: Rollout, gained: Float[Tensor, "steps batch"]) -> Float[Tensor, "steps batch"]:
        """What each step leads to: rewards to the end of the rollout and, with "td", the critic's value behind it."""
        config = self.config
        discount = discounts(rollout.end.stopped, config.discount, config.bootstrap)
        following = torch.zeros_like(discount)
        if discount.any() and not self.demonstrating:  # when the critic learns nothing yet
            following = discount * self.critic(observe(rollout.end, config.view))
        return returns(gained, following, config.discount if config.bootstrap == "td" else 1.0)

    def _selection_loss(
        self, rollout: Rollout, target: Float[Tensor, "steps batch"], value: Float[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """Policy gradient over all actions; while demonstrating, the imitation of them."""
        action = torch.cat([step.action for step in rollout.steps])
        if self.demonstrating:
            return imitation_loss(torch.cat([step.choice.logits for step in rollout.steps]), action, DOUBT)
        probs = torch.cat([step.choice.probs for step in rollout.steps])
        bonus = self.config.entropy_bonus * terms.entropy(probs).mean()
        if self.config.rivals == "edits":
            return self._edits_loss(rollout, target[0].detach()) - bonus
        constant = target.detach()
        expected = baseline(rollout, constant, value.detach(), self.peers)
        advantage = advantages(rollout, constant, expected, self.config.normalise_advantage)
        return selection_loss(probs, action, advantage) - bonus

    def _edits_loss(self, rollout: Rollout, reached: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Each image's edits against the sequence they are edits of, by what both came to."""
        log_prob = torch.zeros_like(reached)
        for step in rollout.steps:
            chosen = step.choice.logits.log_softmax(dim=1).gather(1, step.action[:, None])[:, 0]
            log_prob = log_prob + rollout.spread(step, chosen)
        actions = rollout.sequences(end=len(self.modules) - 1)
        better = self.comparisons.scaled(reached, actions, self.peers)
        logs = log_prob.view(-1, self.peers)
        return neighbour_loss(better, (logs[:, 1:] - logs[:, :1]).flatten(), MARGIN)

    def _check(self, losses: dict[str, Tensor], entries: Sequence[ReplayItem], rollout: Rollout) -> None:
        bad = [name for name, loss in losses.items() if not loss.isfinite()]
        if bad:
            batch = {
                "iteration": self.iteration,
                "numbers": [entry.number for entry in entries],
                "images": torch.stack([entry.image for entry in entries]),
                "histories": rollout.histories(),
            }
            raise NonFiniteLossError(f"the loss of {', '.join(bad)} is not finite at iteration {self.iteration}", batch)

    def _keep(self, entries: Sequence[ReplayItem]) -> None:
        """Puts images back into the pool; those whose episode is over leave it (with a chance to stay, see config)."""
        for entry in entries:
            # Where the policy can stop, "stopped" may come before the horizon: such an image is done.
            more = not self.config.stop and entry.step < self.config.horizon + self.config.overtime
            stays = not entry.stopped or more
            if not stays and self.config.keep_stopped:
                stays = bool(torch.rand(1, generator=self.generator) < self.config.keep_stopped)
            if stays:
                self.pool.put([entry])

    def state_dict(self) -> dict[str, Any]:
        """All that the next iteration depends on."""
        return {
            **self.networks.state_dict(),
            "pool": self.pool.state_dict(),
            "comparisons": self.comparisons.state_dict(),
            "generator": self.generator.get_state(),
            "dropout": torch.get_rng_state(),
            "dropout_on_cuda": torch.cuda.get_rng_state() if self.device == "cuda" else None,
            "counters": [self.iteration, self.passes, self.next_number, self.dropped, int(self.calibrated)],
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restores what `state_dict` gave; the next iteration is then the same, bit by bit, for the same threads."""
        self.networks.load_state_dict(content)
        self.pool.load_state_dict(content["pool"], self.fresh, self.modules)
        self.comparisons.load_state_dict(content["comparisons"])
        self.generator.set_state(content["generator"])
        torch.set_rng_state(content["dropout"])
        if self.device == "cuda" and content.get("dropout_on_cuda") is not None:
            torch.cuda.set_rng_state(content["dropout_on_cuda"])
        self.iteration, self.passes, self.next_number, self.dropped, calibrated = content["counters"]
        self.calibrated = bool(calibrated)


def _left_range(image: Image) -> bool:
    """Whether an image became too dark or too bright on average."""
    means = image.detach().mean(dim=(1, 2, 3))
    return bool(((means < terms.DARKEST) | (means > terms.BRIGHTEST)).any())
