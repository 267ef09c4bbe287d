"""AdaptiveISP: a step-wise actor-critic that learns which module to run next, and with which parameters.

An iteration takes a batch of partly processed images out of a replay buffer, advances each by one module that the actor
samples, and learns from the decrease of the frozen detector's loss:

    reward r   = 100·(D(x_t) - D(x_{t+1})) - reuse - entropy - runtime             rl/rewards.py
    target q   = r + γ·V(x_{t+1}) while the episode goes on ("td"), or r ("greedy")  rl/losses.py
    critic     : (q - V(x_t))²
    selection  : -(q - V(x_t))·ln π(module)      the advantage is a constant
    parameters : -q, differentiated straight through detector and module

Settings beyond the paper, all off in its presets:
- `rollout: n`: an image takes n steps in one iteration. r is then known at the last of them, q is computed backwards
  through the steps (`losses.returns`), and one pass gives a gradient for the parameters of all modules that ran.
- `group_size: n`: n rollouts of each image. The mean return of the others replaces V as the selection's baseline.
- `candidates: edits`: the first rollout of an image is sampled, and the others are its sequence with one module
  removed, inserted or moved. The selection learns to order each pair, as in the method `sequence`.
- `imitation_warmup`: in the first part of the budget every image goes through the expert modules, which the selection
  imitates. The parameters learn as usual, and the critic does not learn.
- `frozen_batchnorm`: batch norm keeps the statistics of the first images.
- `reward`: a registered reward replaces the detection and runtime terms. It counts at the end of each rollout.

Source: Wang et al. 2024 (AdaptiveISP); Sutton & Barto 2018, section 7.1 (n-step returns); Kool et al. 2019 (baselines
from other samples). The differences to the released code are listed in docs/differences.md.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adaptiveisp.data.training_images import TrainingImage, TrainingImages
from adaptiveisp.isp.registry import find_module
from adaptiveisp.policies.checkpoint import ACTOR_CRITIC, PolicyHeader, save_policy
from adaptiveisp.policies.environment import STOP, State
from adaptiveisp.policies.preprocessing import preprocessed_image
from adaptiveisp.policies.stepwise.networks import observe, to_training
from adaptiveisp.policies.stepwise.policy import StepwisePolicy
from adaptiveisp.training.clock import Clock
from adaptiveisp.training.gradients import finite_images
from adaptiveisp.training.methods.actor_critic.metrics import measured
from adaptiveisp.training.methods.actor_critic.networks import Networks
from adaptiveisp.training.methods.actor_critic.rewards import rollout_rewards
from adaptiveisp.training.methods.actor_critic.settings import ActorCriticConfig
from adaptiveisp.training.methods.learner import BaseLearner, Metrics, NonFiniteLossError
from adaptiveisp.training.rl import rewards as terms
from adaptiveisp.training.rl.advantages import advantages, baseline
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
from adaptiveisp.training.rl.rollout import Rollout, RolloutConfig
from adaptiveisp.training.rl.runtime_price import RuntimePrice
from adaptiveisp.training.rl.shared_rollout import roll_out_shared
from adaptiveisp.training.split_batch import split_losses
from adaptiveisp.types import Detector

LABEL_SMOOTHING = 0.1
"""Label smoothing of the imitation loss: share of the target that is distributed equally over all legal actions."""
MOST_TRIALS = 50
"""Largest number of rollouts of a batch, each without the images that became invalid in the one before."""


class ActorCritic(BaseLearner[ActorCriticConfig]):
    """Learns a step-wise policy with its networks, optimisers and replay buffer; arguments as for `BaseLearner`."""

    def __init__(
        self,
        config: ActorCriticConfig,
        stream: TrainingImages,
        detector: Detector,
        budget: int,
        seed: int,
        device: str = "cpu",
    ):
        super().__init__(config, stream, detector, budget, seed, device)
        modules = tuple(find_module(name, config.module_set) for name in config.chosen)
        self.modules = (*modules, STOP) if config.stop else modules
        self.price = RuntimePrice(config)
        self.costs = self.price.costs(self.modules, device)
        torch.manual_seed(seed)  # for the initial weights of the networks and for dropout
        self.generator = torch.Generator().manual_seed(seed)
        self.networks = Networks(config, self.modules, device)
        self.actor, self.critic = self.networks.actor, self.networks.critic
        self.replay_buffer = ReplayBuffer(config.replay_size)
        self.comparisons = Comparisons(len(self.modules) - config.stop)
        self.next_number = 0
        self.dropped = 0
        self.calibrated = not config.frozen_batchnorm  # whether batch norm has its final statistics
        self.imitating = False  # whether the current iteration belongs to the imitation warm-up

    @property
    def group_size(self) -> int:
        """Rollouts of each image; 1 in the imitation warm-up, where all of them would be the same."""
        return 1 if self.imitating else self.config.group_size

    @property
    def header(self) -> PolicyHeader:
        """Header of the policy files of this run."""
        config = self.config
        names = tuple(module.name for module in self.modules)
        origin = f"actor_critic, iteration {self.iteration}, {self.passes} detector passes"
        return PolicyHeader(
            kind=ACTOR_CRITIC,
            module_set=config.module_set,
            modules=names,
            horizon=config.horizon,
            view=config.observation,
            start=config.preprocessing,
            once=config.no_repeat,
            origin=origin,
        )

    def policy(self) -> StepwisePolicy:
        """The current policy; it copies the networks when it is first used and then no longer changes."""
        return StepwisePolicy(self.header, self.networks.averaged.eval(), "actor_critic")

    def save_policy(self, folder: Path, stem: str, provenance: Mapping[str, Any]) -> None:
        """Writes STEM.safetensors with actor and critic; its provenance is in the config.yaml of the folder."""
        networks = {"actor": self.networks.averaged, "critic": self.critic}
        save_policy(folder / f"{stem}.safetensors", self.header, networks)

    def warm_start(self, policy: str) -> None:
        """Takes over the networks of a policy file or a run folder; optimisers, replay buffer and budget start anew.

        Raises:
            WeightsError: there is no such policy file, or its modules, observation or preprocessing are others than
                this run's.
        """
        self.networks.warm_start(policy, self.header)
        self.calibrated = True

    def iterate(self) -> tuple[Metrics, dict[str, float]]:
        """Does one iteration and returns its metrics and the seconds of its parts.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite; no weight was changed by it.
        """
        clock = Clock.started()
        self.imitating = self.progress < self.config.imitation_warmup
        self._fill(clock)
        if not self.calibrated:
            self._calibrate(clock)
        self.networks.to_training()
        entries, rollout = self._valid_rollout(self._next_batch(), clock)
        before = self._losses_before(entries)
        clock.lap("detector forward")
        after = self._losses_after(before, rollout, entries, clock)

        parts = rollout_rewards(rollout, before, after, self.imitating, self.price.config, self.costs, self.progress)
        self.price.observe(rollout.total(self.costs), self.imitating, self.group_size)
        target = self._returns(rollout, torch.stack(list(parts.values())).sum(dim=0))
        value = self.critic(rollout.steps[0].observation)
        losses = {
            "selection": self._selection_loss(rollout, target, value),
            # The return of the first step depends on the parameters of all steps.
            "parameters": parameter_loss(target[0]),
            "value": value_loss(target[0], value),
        }
        self._check(losses, entries, rollout)
        clock.lap("policy")

        norms = self.networks.learn(losses, self.progress, not self.imitating, clock, self.ranks)
        if self.config.reset_batch and terms.leaves_range(rollout.end.image):
            self.dropped += len(entries) // self.group_size
        else:
            self._keep(unstack(entries, rollout.end, after.detach(), rollout.histories())[:: self.group_size])
        self.iteration += 1
        self.networks.average(self.iteration)
        metrics = {
            "iteration": self.iteration,
            "passes": self.passes,
            **measured(rollout, parts, losses, norms, value, before, after.detach(), not self.imitating),
            "worth": {self.modules[index].name: value for index, value in self.comparisons.known.items()},
            "dropped": self.dropped,
            **self.price.metrics,
        }
        clock.lap("bookkeeping")
        return metrics, clock.seconds

    def _fill(self, clock: Clock) -> None:
        """Fills the replay buffer with new images."""
        images = self.load(self.next_number, self.replay_buffer.missing(), self.fresh)
        self.next_number += len(images)
        for image in images:
            used = torch.zeros(len(self.modules), device=self.device)
            self.replay_buffer.put([ReplayItem(image.number, image.image, image.targets, used, 0.0, 0.0, None)])
        clock.lap("data")

    def fresh(self, number: int) -> TrainingImage:
        """The image of that number after the stages of the preprocessing, as it enters the replay buffer."""
        source = self.stream[number]
        image = preprocessed_image(
            source.image[None].to(self.device), self.config.preprocessing, self.config.module_set
        )[0]
        return TrainingImage(number, image, source.targets, source.light, source.reference)

    def _calibrate(self, clock: Clock) -> None:
        """Sets the statistics of batch norm from random rollouts of the images in the replay buffer."""
        observations = []
        with torch.no_grad():
            self.actor.eval()
            for first in range(0, len(self.replay_buffer.entries), self.config.batch):
                state = stack(self.replay_buffer.entries[first : first + self.config.batch])
                rollout = self._whole_episode(state, clock)
                observations += [step.observation for step in rollout.steps]
        self.networks.calibrate(torch.cat(observations))
        self.calibrated = True
        clock.lap("policy")

    def _next_batch(self) -> list[ReplayItem]:
        """A batch from the replay buffer, in which each image is repeated for the rollouts of its group."""
        entries = self.replay_buffer.take(self.config.batch // self.group_size, self.generator)
        return [entry for entry in entries for _ in range(self.group_size)]

    def _valid_rollout(self, entries: list[ReplayItem], clock: Clock) -> tuple[list[ReplayItem], Rollout]:
        """A rollout of the entries; entries that become invalid are dropped, and the others start again."""
        group_size = self.group_size
        for _ in range(MOST_TRIALS):
            rollout = self._one_rollout(stack(entries), clock)
            valid = finite_images(rollout.end.image).view(-1, group_size).all(dim=1).tolist()
            if all(valid):
                return entries, rollout
            if self.config.reset_batch:
                valid = [False] * len(valid)
            self.dropped += valid.count(False)
            entries = [entry for i, entry in enumerate(entries) if valid[i // group_size]]
            if not entries:
                self._fill(clock)
                entries = self._next_batch()
        batch = {"iteration": self.iteration, "images": rollout.start.image, "histories": rollout.histories()}
        message = f"images became invalid in {MOST_TRIALS} rollouts in a row at iteration {self.iteration}"
        raise NonFiniteLossError(message, batch)

    def _one_rollout(self, state: State, clock: Clock) -> Rollout:
        config = self.config
        temperature = config.last_temperature**self.progress
        forced: Tensor | None = None
        if self.imitating:
            forced = torch.tensor([self._expert_actions], device=self.device).expand(len(state.step), -1)
        elif config.candidates == "edits":
            forced = self._forced_candidates(state, clock)
        how = RolloutConfig(config.rollout, config.horizon, config.observation, config.no_repeat, temperature, forced)
        return roll_out_shared(state, self.actor, self.modules, how, self.generator, clock, self.ranks)

    @property
    def _expert_actions(self) -> tuple[int, ...]:
        """Action ids of the expert modules, with `STOP` at the end if there is one."""
        names = [module.name for module in self.modules]
        return tuple(names.index(name) for name in (*self.config.expert_modules, *((STOP.name,) * self.config.stop)))

    @torch.no_grad()
    def _forced_candidates(self, state: State, clock: Clock) -> Int[Tensor, "batch steps"]:
        """For each image a sampled sequence, followed by the edits of it that complete its group."""
        stop = len(self.modules) - 1
        firsts = torch.arange(0, len(state.step), self.group_size, device=self.device)
        self.actor.eval()  # without dropout, as in use
        temperature = self.config.last_temperature**self.progress
        sampled = self._whole_episode(state.rows(firsts), clock, temperature).sequences(end=stop)
        sampled = torch.nn.functional.pad(sampled, (0, self.config.horizon - sampled.shape[1]), value=stop)
        to_training(self.actor, fixed_statistics=self.config.frozen_batchnorm)
        rows = [
            row for base in sampled.cpu() for row in (base, *edited(base, stop, self.group_size - 1, self.generator))
        ]
        return torch.stack(rows).to(self.device)

    def _whole_episode(self, state: State, clock: Clock, temperature: float = 1.0) -> Rollout:
        """Sampled steps to the end of the episode, for all settings of `rollout` and `imitation_warmup`."""
        config = self.config
        how = RolloutConfig(config.horizon, config.horizon, config.observation, config.no_repeat, temperature)
        return roll_out_shared(state, self.actor, self.modules, how, self.generator, clock, self.ranks)

    def _losses_before(self, entries: Sequence[ReplayItem]) -> Float[Tensor, " batch"]:
        """The detector's loss of each image before the rollout, which costs a pass if it is not known yet.

        In the imitation warm-up it is not needed, so unknown losses are set to 0 and cost no pass.
        """
        known = {entry.number: entry.loss for entry in entries}
        unknown = {entry.number: entry for entry in entries if entry.loss is None}
        if self.imitating:
            known |= dict.fromkeys(unknown, 0.0)
        elif unknown:
            image = torch.stack([entry.image for entry in unknown.values()])
            targets = [entry.targets for entry in unknown.values()]
            counts = self.ranks.counts(len(unknown))
            losses = split_losses(self.ranks, counts, self.detector, image, targets, self.config.precision)
            self.passes += len(unknown)
            known |= dict(zip(unknown, losses.tolist(), strict=True))
        return torch.tensor([known[entry.number] for entry in entries], device=self.device)

    def _losses_after(
        self, before: Tensor, rollout: Rollout, entries: Sequence[ReplayItem], clock: Clock
    ) -> Float[Tensor, " batch"]:
        """The detector's loss of each image after the rollout; images that no module changed cost no pass."""
        moved = rollout.moved.nonzero(as_tuple=True)[0]
        if not len(moved):
            return before
        image = rollout.end.rows(moved).image
        targets = [entries[i].targets for i in moved.tolist()]
        counts = self.ranks.counts_among(moved, self.ranks.counts(len(entries)))

        losses = split_losses(self.ranks, counts, self.detector, image, targets, self.config.precision, clock)
        self.passes += len(moved)
        return before.index_copy(0, moved, losses)

    def _returns(self, rollout: Rollout, gained: Float[Tensor, "steps batch"]) -> Float[Tensor, "steps batch"]:
        """The return of each step: the rewards to the end of the rollout and, with "td", the critic's value there."""
        config = self.config
        discount = discounts(rollout.end.stopped, config.discount, config.bootstrap)
        following = torch.zeros_like(discount)
        if discount.any() and not self.imitating:  # the critic does not learn in the warm-up
            following = discount * self.critic(observe(rollout.end, config.observation))
        return returns(gained, following, config.discount if config.bootstrap == "td" else 1.0)

    def _selection_loss(
        self, rollout: Rollout, target: Float[Tensor, "steps batch"], value: Float[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """The policy gradient over all actions; in the imitation warm-up, the imitation loss."""
        action = torch.cat([step.action for step in rollout.steps])
        if self.imitating:
            return imitation_loss(torch.cat([step.choice.logits for step in rollout.steps]), action, LABEL_SMOOTHING)
        probs = torch.cat([step.choice.probs for step in rollout.steps])
        bonus = self.config.entropy_bonus * terms.entropy(probs).mean()
        if self.config.candidates == "edits":
            return self._edits_loss(rollout, target[0].detach()) - bonus
        constant = target.detach()
        expected = baseline(rollout, constant, value.detach(), self.group_size)
        advantage = advantages(rollout, constant, expected, self.config.normalise_advantage)
        return selection_loss(probs, action, advantage) - bonus

    def _edits_loss(self, rollout: Rollout, reached: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
        """The loss that orders each edit and its original sequence by their returns."""
        log_prob = torch.zeros_like(reached)
        for step in rollout.steps:
            chosen = step.choice.logits.log_softmax(dim=1).gather(1, step.action[:, None])[:, 0]
            log_prob = log_prob + rollout.spread(step, chosen)
        actions = rollout.sequences(end=len(self.modules) - 1)
        advantage = self.comparisons.scaled(reached, actions, self.group_size)
        logs = log_prob.view(-1, self.group_size)
        return neighbour_loss(advantage, (logs[:, 1:] - logs[:, :1]).flatten(), MARGIN)

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
        """Puts images back into the replay buffer, except those whose episode has ended (but see `keep_stopped`)."""
        for entry in entries:
            # A policy that can stop ends an episode before the horizon, and such an image leaves at once.
            more = not self.config.stop and entry.step < self.config.horizon + self.config.overtime
            stays = not entry.stopped or more
            if not stays and self.config.keep_stopped:
                stays = bool(torch.rand(1, generator=self.generator) < self.config.keep_stopped)
            if stays:
                self.replay_buffer.put([entry])

    def state_dict(self) -> dict[str, Any]:
        """The complete state on which the next iteration depends."""
        return {
            **(self.networks.state_dict() | self.price.state_dict()),
            "pool": self.replay_buffer.state_dict(),
            "comparisons": self.comparisons.state_dict(),
            "generator": self.generator.get_state(),
            "dropout": torch.get_rng_state(),
            "dropout_on_cuda": torch.cuda.get_rng_state() if self.device == "cuda" else None,
            "counters": [self.iteration, self.passes, self.next_number, self.dropped, int(self.calibrated)],
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restores the result of `state_dict`."""
        self.networks.load_state_dict(content)
        self.replay_buffer.load_state_dict(content["pool"], self.fresh, self.modules)
        self.comparisons.load_state_dict(content["comparisons"])
        self.generator.set_state(content["generator"])
        torch.set_rng_state(content["dropout"])
        if self.device == "cuda" and content.get("dropout_on_cuda") is not None:
            torch.cuda.set_rng_state(content["dropout_on_cuda"])
        self.iteration, self.passes, self.next_number, self.dropped, calibrated = content["counters"]
        self.calibrated = bool(calibrated)
        self.price.load_state_dict(content)
