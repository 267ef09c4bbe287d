"""Sequence policies: one look at the image gives the whole pipeline; the reward comes once, at its end.

An iteration takes fresh images and renders each with a few rival pipelines:

    reward R    = 100·(-D(x_end)) - λ·cost - hinge of the mean brightness     terminal; reward.py
    sequence    : -(R - mean R of the image's other rivals)·ln π(sequence)    the advantage is a constant
    parameters  : -R, differentiated straight through detector and modules

Rivals share image, noise and parameters, so that their difference is due to their modules alone. How they are found
is the setting `rivals`:
- "samples": all are drawn from the policy (Kool et al. 2019: leave-one-out baselines). Its differences are those of
  whole pipelines, which differ in many places at once, and rarely once the policy is sure.
- "edits": one is drawn, the others are that one with a module left out, put in, or moved. The difference R' - R is then
  what that one module is worth, there and for that image, and the loss is -(R' - R)·(ln π(edit) - ln π(drawn)), where
  the two are not ordered that way by `MARGIN` already. A module that the policy has given up is still tried, and comes
  back where it helps, in as many steps as it took to go. This is no gradient of the policy's expected reward: it
  leaves out the factor π(edit | either of the two), which is what makes a sure policy stop learning.

Where neither `rate` nor `line_rate` is above 0 the parameters stay as they are, and no gradient of the detector is
taken: for a run that only learns to choose, from an earlier one (`warm_start`).

With a detector that has no gradient (`exploration`) parameters are sampled too, around z of the network, and learn by
-(R - mean R of the others)·ln N(z tried; z, σ²), over the modules that ran. It takes many more passes.

As in the actor-critic, for the first part of the budget (`demonstration`) every image may go through given modules,
which the sequence head imitates while all parameters learn from each pass.

Source: Won et al. 2026 (POS-ISP) for sequence-level REINFORCE with a terminal reward and straight parameter gradients.
Differs: the sequence may depend on the image; edits; no critic there or here.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adaptiveisp.data.training_images import TrainingImage, TrainingImages
from adaptiveisp.errors import WeightsError
from adaptiveisp.isp.registry import find_module, modules_of
from adaptiveisp.policies.checkpoint import SEQUENCE, PolicyHeader, load_sequence_file, save_policy
from adaptiveisp.policies.environment import STOP
from adaptiveisp.policies.registry import policy_file
from adaptiveisp.policies.sequence.networks import Actions, SequenceNetwork, observe, run_sequences
from adaptiveisp.policies.sequence.policy import SequencePolicy
from adaptiveisp.training.methods.learner import (
    Clock,
    Metrics,
    NonFiniteLossError,
    detector_loss,
    differentiated_loss,
    finite_images,
    optimiser_step,
)
from adaptiveisp.training.methods.sequence.settings import SequenceConfig
from adaptiveisp.training.rl import rewards as terms
from adaptiveisp.training.rl.losses import mean_of_others, neighbour_loss, parameter_loss
from adaptiveisp.training.rl.pipeline_edits import MARGIN, Comparisons, edited
from adaptiveisp.training.run_state import check_optimiser
from adaptiveisp.types import Detector, Targets

SCALE_MEMORY = 0.98
"""Share of the running mean square of advantages that an iteration keeps."""


class SequenceLearner:
    """The learner: one network, its optimiser, and one `iterate`.

    Args:
        config: settings.
        stream: training images by number.
        detector: the frozen detector.
        budget: image passes through the detector after which the run is done.
        seed: fixes the network's first weights and all sampling.
        device: where images and network are, and the detector.
    """

    def __init__(
        self,
        config: SequenceConfig,
        stream: TrainingImages,
        detector: Detector,
        budget: int,
        seed: int,
        device: str = "cpu",
    ):
        self.config, self.stream, self.detector, self.budget = config, stream, detector, budget
        self.device = device
        names = config.modules or tuple(module.name for module in modules_of(config.module_set))
        self.modules = (*(find_module(name, config.module_set) for name in names), STOP)
        costs = [config.costs.get(module.name, module.cost_ms) for module in self.modules]
        self.costs = torch.tensor(costs, device=device)
        self.generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = SequenceNetwork(self.modules, config.condition, config.horizon).to(device)
        self.averaged = copy.deepcopy(self.network) if config.averaging else self.network
        self.optimiser = torch.optim.AdamW(self._groups(), fused=True)
        line = list(self.network.sequence_line.parameters())
        chooses = [p for p in self.network.chooses if all(p is not own for own in line)]
        self.parts = {"parameters": self.network.sets_parameters, "sequence": chooses}
        if config.sequence_line_rate:  # on its own, so that without it the others learn as if there was none
            self.parts["lines"] = line
        order = [names.index(name) for name in config.demonstrated]
        order += [len(names)] * (config.horizon - len(order))
        self.order = torch.tensor([order], device=device)
        self.iteration = 0
        self.passes = 0
        self.next_number = 0
        self.scale = 0.0  # running mean square of the advantages
        self.comparisons = Comparisons(len(names))
        self.dropped = 0
        self.warm = False  # began with weights that know something

    def _groups(self) -> list[dict[str, Any]]:
        """The weights with their learning rates and decay."""
        config, network = self.config, self.network
        lines = {id(p) for line in (network.parameter_line, network.sequence_line) for p in line.parameters()}
        weights = [p for p in network.sets_parameters if id(p) not in lines]
        chooses = [p for p in network.chooses if id(p) not in lines]
        own = list(network.parameter_line.parameters()), list(network.sequence_line.parameters())
        return [
            {"params": weights, "start": config.rate, "weight_decay": 0.0},
            {"params": chooses, "start": config.sequence_rate, "weight_decay": 0.0},
            {"params": own[0], "start": config.line_rate, "weight_decay": config.line_decay},
            {"params": own[1], "start": config.sequence_line_rate, "weight_decay": 0.0},
        ]

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, in [0, 1]."""
        return min(1.0, self.passes / self.budget)

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        return self.passes >= self.budget

    @property
    def temperature(self) -> float:
        """Of the sequence head's softmax, as far as the run has come."""
        first, last = self.config.first_temperature, self.config.last_temperature
        return float(first * (last / first) ** self.progress)

    @property
    def header(self) -> PolicyHeader:
        """What a policy file of this run says of itself."""
        config = self.config
        origin = f"sequence, iteration {self.iteration}, {self.passes} detector passes"
        names = tuple(module.name for module in self.modules)
        return PolicyHeader(
            kind=SEQUENCE,
            module_set=config.module_set,
            modules=names,
            horizon=config.horizon,
            view="log",
            start=config.start,
            once=True,
            condition=config.condition,
            origin=origin,
        )

    def policy(self) -> SequencePolicy:
        """The policy as it stands; it looks at this learner's network when it is first used, and never again."""
        return SequencePolicy(self.header, self.averaged, "sequence")

    def save_policy(self, folder: Path, stem: str, provenance: Mapping[str, Any]) -> None:
        """Writes STEM.safetensors; config.yaml beside it says where it came from."""
        save_policy(folder / f"{stem}.safetensors", self.header, {"sequence": self.averaged})

    def warm_start(self, policy: str) -> None:
        """Takes the network of a policy file or a run folder; optimiser and budget start anew.

        Raises:
            WeightsError: there is no such policy file, or its modules, start or condition are others than this run's.
        """
        header, network = load_sequence_file(policy_file(policy))
        for name in ("module_set", "modules", "start", "condition", "horizon"):
            if getattr(header, name) != getattr(self.header, name):
                theirs, wanted = getattr(header, name), getattr(self.header, name)
                raise WeightsError(f"{policy}: has the {name} {theirs}, this run has {wanted}; give both the same")
        for ours in (self.network, self.averaged):
            ours.load_state_dict(network.state_dict())
        self.warm = True

    def iterate(self) -> tuple[Metrics, dict[str, float]]:
        """One iteration: its metrics, and the seconds of its parts.

        Raises:
            NonFiniteLossError: no image could be rendered, or a loss is NaN or infinite; no weight was changed by it.
        """
        clock = Clock.started()
        config, demonstrating = self.config, self.progress < self.config.demonstration
        group = 1 if demonstrating and not config.exploration else config.group
        sources = [self.stream[self.next_number + i] for i in range(config.batch // group)]
        self.next_number += len(sources)
        image = torch.stack([source.image for source in sources]).to(self.device)
        clock.lap("data")
        seen = observe(image, config.start, config.module_set)
        embedding = self.network.embed(seen)
        logits = self.network.logits(embedding, config.dropout, self.generator)
        actions = self.order.expand(len(image) * group, -1) if demonstrating else self._rivals(embedding)
        log_prob, entropy, imitation = self.network.log_probs(
            embedding.repeat_interleave(group, dim=0), actions, self.temperature
        )
        tried, log_density = self._tried(logits.repeat_interleave(group, dim=0), actions)
        clock.lap("policy")
        begun = seen.preprocessed.repeat_interleave(group, dim=0)
        with torch.set_grad_enabled(config.sets_parameters):
            rendered = run_sequences(begun, self.modules, actions, self.network.params(tried))
        clock.lap("modules")
        sources, kept = self._valid(sources, rendered, group)
        if len(kept) < len(rendered):
            rendered, actions, log_prob, entropy, imitation, log_density = (
                values[kept] for values in (rendered, actions, log_prob, entropy, imitation, log_density)
            )
        targets = [source.targets for source in sources for _ in range(group)]
        loss = self._detector_loss(rendered, targets, clock)
        self.passes += len(rendered)

        parts = self._rewards(rendered, loss, actions)
        reward = torch.stack(list(parts.values())).sum(dim=0)
        losses = self._losses(reward, log_prob, log_density, entropy, imitation if demonstrating else None, actions)
        self._check(losses, sources, actions)
        scale = 0.1 ** (config.rate_decay * self.progress)
        norms = optimiser_step(
            self.parts, self.optimiser, losses["sequence"] + losses["parameters"], scale, config.gradient_norm
        )
        clock.lap("backward")
        self.iteration += 1
        self._average()
        metrics = {
            "iteration": self.iteration,
            "passes": self.passes,
            "reward": {name: float(part.detach().mean()) for name, part in parts.items()},
            "loss": {name: float(value.detach()) for name, value in losses.items()},
            "gradient_norm": norms,
            "entropy": float(entropy.detach().mean()),
            "detector_loss": float(loss.detach().mean()),
            "modules": {m.name: int((actions == i).sum()) for i, m in enumerate(self.modules[:-1])},
            "worth": {self.modules[index].name: worth for index, worth in self.comparisons.known.items()},
            "dropped": self.dropped,
        }
        clock.lap("bookkeeping")
        return metrics, clock.seconds

    def _valid(
        self, sources: list[TrainingImage], rendered: Tensor, group: int
    ) -> tuple[list[TrainingImage], Int[Tensor, " kept"]]:
        """The images all of whose renderings are finite, and the rows of these; the others are dropped.

        Raises:
            NonFiniteLossError: none is left.
        """
        finite = finite_images(rendered).view(-1, group).all(dim=1)
        left = [source for source, valid in zip(sources, finite.tolist(), strict=True) if valid]
        self.dropped += len(sources) - len(left)
        if not left:
            batch = {"iteration": self.iteration, "numbers": [source.number for source in sources]}
            raise NonFiniteLossError(f"no rendering of iteration {self.iteration} is finite", batch)
        return left, finite.repeat_interleave(group).nonzero(as_tuple=True)[0]

    @torch.no_grad()
    def _rivals(self, embedding: Tensor) -> Actions:
        """The rivals of each image, one after the other in the batch."""
        group = self.config.group
        if self.config.rivals == "samples":
            return self.network.sample(embedding.repeat_interleave(group, dim=0), self.generator, self.temperature)
        first = self.network.sample(embedding, self.generator, self.temperature)
        stop = len(self.modules) - 1
        rows = [row for base in first.cpu() for row in (base, *edited(base, stop, group - 1, self.generator))]
        return torch.stack(rows).to(self.device)

    def _rewards(
        self, rendered: Tensor, loss: Float[Tensor, " batch"], actions: Actions
    ) -> dict[str, Float[Tensor, " batch"]]:
        config = self.config
        costs = self.costs[actions].sum(dim=1)
        return {
            "detection": -terms.DETECTION_SCALE * loss,
            "runtime": -config.runtime_weight * costs,
            "brightness": -config.brightness_weight * terms.brightness_penalty(rendered),
        }

    def _tried(
        self, logits: Float[Tensor, "batch n_logits"], actions: Actions
    ) -> tuple[Float[Tensor, "batch n_logits"], Float[Tensor, " batch"]]:
        """The outputs z that are tried, and the logarithm of their density (but for a constant); 0 without exploration.

        Two rivals of an image share their noise, one adds what the other subtracts: the difference of their rewards is
        then due to it alone where their modules are the same.
        """
        deviation = self.config.exploration
        if not deviation:
            return logits, logits.new_zeros(len(logits))
        half = torch.randn(len(logits) // 2, logits.shape[1], generator=self.generator).to(logits)
        tried = logits.detach() + deviation * torch.stack([half, -half], dim=1).flatten(0, 1)
        ran = logits.new_zeros(len(logits), len(self.modules)).scatter_(1, actions, 1.0)
        widths = torch.tensor(self.network.widths, device=logits.device)
        squares = ((tried - logits) / deviation).square() * ran.repeat_interleave(widths, dim=1)
        return tried, -squares.sum(dim=1) / 2

    def _detector_loss(self, rendered: Tensor, targets: list[Targets], clock: Clock) -> Float[Tensor, " batch"]:
        if self.config.sets_parameters and not self.config.exploration:
            return differentiated_loss(self.detector, rendered, targets, self.config.precision, clock)
        with torch.no_grad():
            loss = detector_loss(self.detector, rendered, targets, self.config.precision)
        clock.lap("detector forward")
        return loss

    def _losses(
        self,
        reward: Float[Tensor, " batch"],
        log_prob: Float[Tensor, " batch"],
        log_density: Float[Tensor, " batch"],
        entropy: Float[Tensor, " batch"],
        imitation: Float[Tensor, " batch"] | None,
        actions: Actions,
    ) -> dict[str, Float[Tensor, ""]]:
        """The losses of the sequence head, on what each rival is worth against the image's others, and of parameters.

        Args:
            reward: of each rival, attached to its parameters unless they explore.
            log_prob, log_density: ln π of its sequence, of its parameters.
            entropy: of its choices.
            imitation: the sequence head's loss while demonstrating.
            actions: its sequence.
        """
        config = self.config
        losses = {"parameters": parameter_loss(reward)}
        bonus = config.entropy_bonus * entropy.mean()
        if config.rivals == "samples" and (imitation is None or config.exploration):
            fixed = reward.detach()
            advantage = self._scaled(fixed - mean_of_others(fixed, config.group))
            losses["sequence"] = -(advantage * log_prob).mean() - bonus
            if config.exploration:
                losses["parameters"] = -(advantage * log_density).mean()
        elif imitation is None:
            better = self.comparisons.scaled(reward.detach(), actions, config.group)
            logs = log_prob.view(-1, config.group)
            losses["sequence"] = neighbour_loss(better, (logs[:, 1:] - logs[:, :1]).flatten(), MARGIN) - bonus
        if imitation is not None:
            losses["sequence"] = imitation.mean()
        return losses

    def _scaled(self, advantage: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """The advantages over their running root mean square."""
        square = float(advantage.square().mean())
        self.scale = square if not self.scale else SCALE_MEMORY * self.scale + (1 - SCALE_MEMORY) * square
        return advantage / (math.sqrt(self.scale) + 1e-6)

    def _check(
        self, losses: dict[str, Tensor], sources: Sequence[TrainingImage], actions: Int[Tensor, "batch length"]
    ) -> None:
        bad = [name for name, loss in losses.items() if not loss.isfinite()]
        if bad:
            batch = {
                "iteration": self.iteration,
                "numbers": [source.number for source in sources],
                "images": torch.stack([source.image for source in sources]),
                "actions": actions,
            }
            raise NonFiniteLossError(f"the loss of {', '.join(bad)} is not finite at iteration {self.iteration}", batch)

    @torch.no_grad()
    def _average(self) -> None:
        if not self.config.averaging:
            return
        # Early on the mean goes over all iterations so far: the first weights, which know nothing, must not last.
        early = 1.0 if self.warm else self.iteration / (self.iteration + 9)
        chooses = {id(weight) for weight in self.network.chooses}
        for ours, new in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
            averaging = self.config.sequence_averaging if id(new) in chooses else self.config.averaging
            ours.lerp_(new, 1 - min(averaging, early))

    def state_dict(self) -> dict[str, Any]:
        """All that the next iteration depends on."""
        return {
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict() if self.config.averaging else {},
            "optimiser": self.optimiser.state_dict(),
            "generator": self.generator.get_state(),
            "counters": [self.iteration, self.passes, self.next_number],
            "comparisons": self.comparisons.state_dict(),
            "running": [self.scale, float(self.dropped), float(self.warm)],
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restores what `state_dict` gave; the next iteration is then the same, bit by bit, for the same threads."""
        self.network.load_state_dict(content["network"])
        if self.config.averaging:
            self.averaged.load_state_dict(content["averaged"])
        check_optimiser(content["optimiser"], self.optimiser, "optimiser")
        self.optimiser.load_state_dict(content["optimiser"])
        self.generator.set_state(content["generator"])
        self.iteration, self.passes, self.next_number = content["counters"]
        self.comparisons.load_state_dict(content["comparisons"])
        self.scale, dropped, warm = content["running"]
        self.dropped, self.warm = int(dropped), bool(warm)
