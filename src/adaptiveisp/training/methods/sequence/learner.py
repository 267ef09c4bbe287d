"""Sequence policies: one observation of the image gives the whole pipeline, and the reward comes at its end.

An iteration takes new images and renders each with a few candidate pipelines:

    reward R    = 100·(-D(x_end)) - λ·cost - brightness penalty              terminal; see rl/rewards.py
    sequence    : -(R - mean R of the image's other candidates)·ln π(sequence)    the advantage is a constant
    parameters  : -R, differentiated straight through detector and modules

The candidates of an image share the image, its noise and the parameters of the modules, so that their rewards differ by
their modules only. The setting `candidates` says how they are drawn:
- "samples": all are drawn from the policy (Kool et al. 2019, leave-one-out baselines). Two samples differ in many
  places, and they rarely differ once the policy is certain.
- "edits": one is drawn, and the others are copies of it with one module removed, inserted or moved. The difference
  R' - R is then the advantage of that module in that place for that image. The loss is
  -(R' - R)·(ln π(edit) - ln π(drawn)), over the pairs that are not yet ordered correctly by `MARGIN`. Modules that the
  policy has dropped are still tried, and a module that helps comes back in as many steps as it took to drop it. This is
  not the gradient of the expected reward: it lacks the factor π(edit | either of the two), by which a certain policy
  would stop learning.
- "listed": the pipelines of the setting `pipelines`, all of them for every image, so that their advantages are known.
  In the imitation warm-up each image goes through one of them at random. See rl/listed_pipelines.py.

If `rate` and `line_rate` are both 0, the parameters do not change and no gradient of the detector is computed. A run
with a warm start can then learn the choice of modules alone.

For a detector without a gradient (`exploration` above 0) the parameters are sampled around the network's z and learn by
-(R - mean R of the others)·ln N(z tried; z, σ²) over the modules that ran. This takes many more passes.

In the imitation warm-up, as in the actor-critic, every image goes through the expert modules, which the sequence head
imitates while all parameters learn from each pass.

Source: Won et al. 2026 (POS-ISP) for sequence-level REINFORCE with a terminal reward and straight parameter gradients.
Differs: the sequence may depend on the image; candidates may be edits. Neither has a critic.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adaptiveisp.data.references import stacked_references
from adaptiveisp.data.training_images import TrainingImage, TrainingImages
from adaptiveisp.isp.registry import find_module
from adaptiveisp.policies.checkpoint import SEQUENCE, PolicyHeader, save_policy
from adaptiveisp.policies.environment import STOP
from adaptiveisp.policies.sequence.networks import Actions, SequenceNetwork
from adaptiveisp.policies.sequence.policy import SequencePolicy
from adaptiveisp.training.clock import Clock
from adaptiveisp.training.gradients import finite_images, optimiser_step
from adaptiveisp.training.methods.learner import BaseLearner, Metrics, NonFiniteLossError, require_finite
from adaptiveisp.training.methods.sequence.metrics import measured
from adaptiveisp.training.methods.sequence.sampling import (
    listed_actions,
    recalled_images,
    sample_candidates,
    sample_experts,
    sample_logits,
)
from adaptiveisp.training.methods.sequence.settings import SequenceConfig
from adaptiveisp.training.methods.sequence.shared import observed, rendered
from adaptiveisp.training.methods.sequence.weights import parameter_groups, update_average, warm_weights
from adaptiveisp.training.rl.listed_pipelines import ListedPipelines
from adaptiveisp.training.rl.losses import mean_of_others, neighbour_loss, parameter_loss
from adaptiveisp.training.rl.pipeline_edits import MARGIN, Comparisons
from adaptiveisp.training.rl.rewards import DEFAULT_REWARD, RewardInputs, reward_terms
from adaptiveisp.training.rl.runtime_price import RuntimePrice
from adaptiveisp.training.run_state import check_optimiser
from adaptiveisp.training.split_batch import split_losses
from adaptiveisp.types import Detector, Targets

SCALE_DECAY = 0.98
"""Decay of the running mean square of the advantages for each iteration."""


class SequenceLearner(BaseLearner[SequenceConfig]):
    """Learns a sequence policy; the arguments are those of `BaseLearner`."""

    def __init__(
        self,
        config: SequenceConfig,
        stream: TrainingImages,
        detector: Detector,
        budget: int,
        seed: int,
        device: str = "cpu",
    ):
        super().__init__(config, stream, detector, budget, seed, device)
        names = config.chosen
        self.modules = (*(find_module(name, config.module_set) for name in names), STOP)
        self.price = RuntimePrice(config)
        self.costs = self.price.costs(self.modules, device)
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = SequenceNetwork(self.modules, config.condition, config.horizon).to(device)
        self.averaged = copy.deepcopy(self.network) if config.averaging else self.network
        self.optimiser = torch.optim.AdamW(parameter_groups(self.network, config), fused=True)
        line = list(self.network.sequence_line.parameters())
        chooses = [p for p in self.network.chooses if all(p is not own for own in line)]
        self.parts = {"parameters": self.network.sets_parameters, "sequence": chooses}
        if config.sequence_line_rate:  # clipped separately, so that without it the other parts learn as before
            self.parts["lines"] = line
        order = [names.index(name) for name in config.expert_modules]
        order += [len(names)] * (config.horizon - len(order))
        self.order = torch.tensor([order], device=device)
        self.next_number = 0
        self.scale = 0.0  # running mean square of the advantages
        self.comparisons = Comparisons(len(names))
        self.listed = ListedPipelines()
        self.dropped = 0
        self.warm = False  # whether it started from the weights of another policy

    @property
    def temperature(self) -> float:
        """Temperature of the sequence head's softmax at this point of the run."""
        first, last = self.config.first_temperature, self.config.last_temperature
        return float(first * (last / first) ** self.progress)

    @property
    def header(self) -> PolicyHeader:
        """Header of the policy files of this run."""
        config = self.config
        origin = f"sequence, iteration {self.iteration}, {self.passes} detector passes"
        names = tuple(module.name for module in self.modules)
        return PolicyHeader(
            kind=SEQUENCE,
            module_set=config.module_set,
            modules=names,
            horizon=config.horizon,
            view="log",
            start=config.preprocessing,
            once=True,
            condition=config.condition,
            origin=origin,
        )

    def policy(self) -> SequencePolicy:
        """The current policy; it copies the network when it is first used and then no longer changes."""
        return SequencePolicy(self.header, self.averaged, "sequence")

    def save_policy(self, folder: Path, stem: str, provenance: Mapping[str, Any]) -> None:
        """Writes STEM.safetensors; its provenance is in the config.yaml of the folder."""
        save_policy(folder / f"{stem}.safetensors", self.header, {"sequence": self.averaged})

    def warm_start(self, policy: str) -> None:
        """Takes over the network of a policy file or a run folder, see `warm_weights`; the rest starts anew."""
        state = warm_weights(policy, self.header, self.network, self.config.warm_start_like)
        for ours in (self.network, self.averaged):
            ours.load_state_dict(state)
        self.warm = True

    def iterate(self) -> tuple[Metrics, dict[str, float]]:
        """Does one iteration and returns its metrics and the seconds of its parts.

        Raises:
            NonFiniteLossError: no image could be rendered, or a loss is NaN or infinite; no weight was changed by it.
        """
        clock = Clock.started()
        config, imitating = self.config, self.progress < self.config.imitation_warmup
        group_size = 1 if imitating and not config.exploration else config.group_size
        sources = self.load(self.next_number, config.batch // group_size)
        self.next_number += len(sources)
        image = torch.stack([source.image for source in sources]).to(self.device)
        clock.lap("data")
        shares = self.ranks.counts(len(sources))
        observation = observed(self.ranks, image, shares, config)
        embedding = self.network.embed(observation)
        logits = self.network.logits(embedding, config.dropout, self.generator)
        if imitating:
            actions = sample_experts(config, self.order, len(image) * group_size, self.generator)
        else:
            actions = sample_candidates(self.network, embedding, config, self.temperature, self.generator)
        (actions,) = self.ranks.same(actions)
        self.ranks.same_state(self.generator)
        log_prob, entropy, imitation = self.network.log_probs(
            embedding.repeat_interleave(group_size, dim=0), actions, self.temperature
        )
        repeated, widths = logits.repeat_interleave(group_size, dim=0), self.network.widths
        tried, log_density = sample_logits(repeated, actions, widths, config.exploration, self.generator)
        clock.lap("policy")
        rows, own = [group_size * n for n in shares], sources[self.ranks.own(shares)]
        parts = (rows, own, observation.preprocessed, self.network, actions, tried, config)
        candidates = rendered(self.ranks, *parts)
        clock.lap("modules")
        sources, kept = self._valid(sources, candidates, group_size)
        if len(kept) < len(candidates):
            candidates, actions, log_prob, entropy, imitation, log_density = (
                values[kept] for values in (candidates, actions, log_prob, entropy, imitation, log_density)
            )
        targets = [source.targets for source in sources for _ in range(group_size)]
        loss = self._detector_loss(candidates, targets, self.ranks.counts_among(kept, rows), clock)
        self.passes += len(candidates)

        terms = self._rewards(candidates, loss, actions, stacked_references([s.reference for s in sources], group_size))
        self.price.observe(self.costs[actions].sum(dim=1), imitating, group_size, log_prob)
        reward = torch.stack(list(terms.values())).sum(dim=0)
        losses = self._losses(reward, log_prob, log_density, entropy, imitation if imitating else None, actions)
        require_finite(losses, self.iteration, sources, actions)
        norms = self._step(losses)
        if config.replays and not imitating:
            self._replay(embedding[kept[::group_size] // group_size], terms)
        clock.lap("backward")
        self.iteration += 1
        if config.averaging:
            update_average(self.averaged, self.network, config, 0 if self.warm else self.iteration)
        metrics = self._counted(measured(self.modules, terms, losses, norms, entropy, loss, actions))
        clock.lap("bookkeeping")
        return metrics, clock.seconds

    def _counted(self, batch: Metrics) -> Metrics:
        """The line of the run's log: the means over a batch, and what the learner counts."""
        return {
            "iteration": self.iteration,
            "passes": self.passes,
            **batch,
            "worth": {self.modules[index].name: value for index, value in self.comparisons.known.items()},
            "dropped": self.dropped,
            **self.price.metrics,
        }

    def _step(self, losses: Mapping[str, Float[Tensor, ""]]) -> dict[str, float]:
        """Does one optimiser step and returns the norms of the gradients by part."""
        scale = 0.1 ** (self.config.rate_decay * self.progress)
        total = losses["sequence"] + losses["parameters"]
        return optimiser_step(self.parts, self.optimiser, total, scale, self.config.gradient_norm, self.ranks)

    def _replay(self, embedding: Float[Tensor, "images features"], terms: Mapping[str, Tensor]) -> None:
        """Further updates of the sequence head, on these images and those of earlier iterations.

        Args:
            embedding: of the images of this iteration.
            terms: of the reward of every listed pipeline for each of them. Only the default reward's cost, whose weight
                may change, is left out and added anew.
        """
        config, scale = self.config, 0.1 ** (self.config.rate_decay * self.progress)
        is_default = config.reward == DEFAULT_REWARD
        reward = torch.stack([term for name, term in terms.items() if not (is_default and name == "runtime")])
        self.listed.remember(embedding, reward.sum(dim=0).view(-1, config.group_size))
        costs = self.costs[listed_actions(config).to(self.device)].sum(dim=1)
        price = (self.price.weight if is_default else 0.0) * costs
        parts = {name: part for name, part in self.parts.items() if name != "parameters"}
        for _ in range(config.replays):
            worth, log_prob = recalled_images(self.listed, self.network, config, self.temperature, self.generator)
            loss = self.listed.fit(worth - price, log_prob)
            optimiser_step(parts, self.optimiser, loss, scale, config.gradient_norm, self.ranks)

    def _valid(
        self, sources: list[TrainingImage], rendered: Tensor, group_size: int
    ) -> tuple[list[TrainingImage], Int[Tensor, " kept"]]:
        """The images whose renderings are all finite, and the rows of these; the others are dropped.

        Raises:
            NonFiniteLossError: no image is left.
        """
        finite = finite_images(rendered).view(-1, group_size).all(dim=1)
        left = [source for source, valid in zip(sources, finite.tolist(), strict=True) if valid]
        self.dropped += len(sources) - len(left)
        if not left:
            batch = {"iteration": self.iteration, "numbers": [source.number for source in sources]}
            raise NonFiniteLossError(f"no rendering of iteration {self.iteration} is finite", batch)
        return left, finite.repeat_interleave(group_size).nonzero(as_tuple=True)[0]

    def _rewards(
        self, rendered: Tensor, loss: Float[Tensor, " batch"], actions: Actions, reference: Tensor | None
    ) -> dict[str, Float[Tensor, " batch"]]:
        """The terms of the reward by name."""
        stop = len(self.modules) - 1
        inputs = RewardInputs(
            loss_after=loss,
            loss_before=None,
            cost_ms=self.costs[actions].sum(dim=1),
            n_modules=(actions != stop).sum(dim=1).to(loss),
            image=rendered,
            runtime_weight=self.price.weight,
            brightness_weight=self.config.brightness_weight,
            reference=None if reference is None else reference.to(rendered.device),
            colour_weight=self.config.colour_weight,
            highlight_weight=self.config.highlight_weight,
        )
        return reward_terms(self.config.reward, inputs)

    def _detector_loss(
        self, rendered: Tensor, targets: list[Targets], counts: Sequence[int], clock: Clock
    ) -> Float[Tensor, " batch"]:
        """The detector's loss of each rendered image, of which each rank computes its number in `counts`."""
        differentiable = self.config.sets_parameters and not self.config.exploration
        of_all = (self.detector, rendered, targets, self.config.precision)
        loss = split_losses(self.ranks, counts, *of_all, clock if differentiable else None)
        if not differentiable:
            clock.lap("detector forward")
        return loss

    @property
    def most_ranks(self) -> int:
        """Largest number of ranks: each has an image of every iteration, with all its candidates."""
        return self.config.batch // self.config.group_size

    def _losses(
        self,
        reward: Float[Tensor, " batch"],
        log_prob: Float[Tensor, " batch"],
        log_density: Float[Tensor, " batch"],
        entropy: Float[Tensor, " batch"],
        imitation: Float[Tensor, " batch"] | None,
        actions: Actions,
    ) -> dict[str, Float[Tensor, ""]]:
        """The losses of the sequence head and of the parameters.

        Args:
            reward: of each candidate, differentiable in its parameters unless `exploration` is above 0.
            log_prob, log_density: ln π of its sequence, and of its parameters.
            entropy: of its choices.
            imitation: the sequence head's loss in the imitation warm-up, None after it.
            actions: its sequence.
        """
        config = self.config
        losses = {"parameters": parameter_loss(reward)}
        bonus = config.entropy_bonus * entropy.mean()
        if config.candidates == "samples" and (imitation is None or config.exploration):
            constant = reward.detach()
            advantage = self._scaled(constant - mean_of_others(constant, config.group_size))
            losses["sequence"] = -(advantage * log_prob).mean() - bonus
            if config.exploration:
                losses["parameters"] = -(advantage * log_density).mean()
        elif config.candidates == "listed" and imitation is None:
            table = (-1, config.group_size)
            losses["parameters"], order = self.listed.losses(reward.view(table), log_prob.view(table))
            losses["sequence"] = order - bonus
        elif imitation is None:
            advantage = self.comparisons.scaled(reward.detach(), actions, config.group_size)
            logs = log_prob.view(-1, config.group_size)
            losses["sequence"] = neighbour_loss(advantage, (logs[:, 1:] - logs[:, :1]).flatten(), MARGIN) - bonus
        if imitation is not None:
            losses["sequence"] = imitation.mean()
        return losses

    def _scaled(self, advantage: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The advantages divided by their running root mean square."""
        square = float(advantage.square().mean())
        self.scale = square if not self.scale else SCALE_DECAY * self.scale + (1 - SCALE_DECAY) * square
        return advantage / (math.sqrt(self.scale) + 1e-6)

    def state_dict(self) -> dict[str, Any]:
        """The complete state on which the next iteration depends."""
        return {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict() if self.config.averaging else {},
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "counters": [self.iteration, self.passes, self.next_number],
            "comparisons": self.comparisons.state_dict(),
            "listed": self.listed.state_dict(),
            "running": [self.scale, float(self.dropped), float(self.warm)],
        } | self.price.state_dict()

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restores the result of `state_dict`."""
        self.network.load_state_dict(content["network"])
        if self.config.averaging:
            self.averaged.load_state_dict(content["averaged"])
        check_optimiser(content["optimiser"], self.optimiser, "optimiser")
        self.optimiser.load_state_dict(content["optimiser"])
        self.generator.set_state(content["generator"])
        self.iteration, self.passes, self.next_number = content["counters"]
        self.comparisons.load_state_dict(content["comparisons"])
        if "listed" in content:  # runs of earlier versions have none
            self.listed.load_state_dict(content["listed"])
        self.scale, dropped, warm = content["running"]
        self.dropped, self.warm = int(dropped), bool(warm)
        self.price.load_state_dict(content)
