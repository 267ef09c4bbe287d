"""Why a learned policy chose its modules: what it saw, and how likely each module was at each step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.errors import AdaptiveISPError, PolicyError
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.policies.base import Policy
from adaptiveisp.policies.checkpoint import ACTOR_CRITIC, load_policy_file, read_header
from adaptiveisp.policies.environment import STOP
from adaptiveisp.policies.pos_isp.policy import PosIspPolicy
from adaptiveisp.policies.registry import policy_file
from adaptiveisp.policies.sequence.networks import observe
from adaptiveisp.policies.sequence.policy import SequencePolicy
from adaptiveisp.policies.stepwise.networks import Critic
from adaptiveisp.policies.stepwise.policy import Look, StepwisePolicy
from adaptiveisp.types import Image

Small = Float[Tensor, "3 64 64"]

NO_CHOICES = "this policy has no probabilities: it is a rule, or the same pipeline for every image"
ONCE = "this policy looks at the image once, before its first module, and chooses all of them from that"
EACH_STEP = "this policy looks at the image before each step"
SAME_ORDER = "this policy has one order of modules for all images; only their parameters depend on the image"


@dataclass(frozen=True)
class Choice:
    """One step of a policy.

    Attributes:
        probabilities: module → probability in [0, 1], in the order of action ids; "stop" ends the pipeline.
        chosen: name of the module that was taken.
        value: the expected sum of the rewards that follow, by the policy's critic; None where it has none.
        observation: the image that the networks saw, in [0, 1]; None where they saw nothing new since the last step.
    """

    probabilities: dict[str, float]
    chosen: str
    value: float | None = None
    observation: Small | None = None


@dataclass(frozen=True)
class Explanation:
    """The choices of a policy for one image.

    Attributes:
        choices: one for each step; the last may be "stop".
        n_preprocessing: number of stages that run before the first choice, by a rule.
        note: a sentence about how such a policy chooses.
    """

    choices: tuple[Choice, ...]
    n_preprocessing: int
    note: str


def critic_of(spec: str) -> Critic | None:
    """The critic in the file of a policy; None where there is no such file or it holds none.

    Args:
        spec: as for `load_policy`.
    """
    try:
        file = policy_file(spec)
        if file.suffix != ".safetensors" or read_header(file).kind != ACTOR_CRITIC:
            return None
        return load_policy_file(file)[2]
    except AdaptiveISPError:
        return None


def can_explain(policy: Policy) -> bool:
    """Whether a policy has probabilities of modules."""
    return isinstance(policy, SequencePolicy | StepwisePolicy | PosIspPolicy)


@torch.inference_mode()
def explain(policy: Policy, image: Image, begin: Sequence[str] = (), critic: Critic | None = None) -> Explanation:
    """The choices of a policy for an image.

    Args:
        policy: a learned policy.
        image: (1, 3, height, width) developed image, linear RGB in [0, 1].
        begin: names of the modules of the first steps, after which the likeliest ones are taken.
        critic: of the policy, for the values.

    Raises:
        PolicyError: the policy has no probabilities, or no module of a name in `begin`.
    """
    if isinstance(policy, SequencePolicy):
        choices, note = _of_sequence(policy, image, _ids(policy, begin)), ONCE
        note = note if policy.network.condition == "image" else SAME_ORDER
    elif isinstance(policy, StepwisePolicy):
        choices, note = _of_steps(policy, image, _ids(policy, begin), critic), EACH_STEP
    elif isinstance(policy, PosIspPolicy):
        choices, note = _of_pos_isp(policy, _ids(policy, begin)), SAME_ORDER
    else:
        raise PolicyError(f"policy {policy.name}: {NO_CHOICES}")
    return Explanation(tuple(choices), policy.n_preprocessing, note)


@torch.inference_mode()
def pipeline_after(policy: Policy, image: Image, begin: Sequence[str]) -> Pipeline:
    """The pipeline of a policy whose first choices are given; it makes the others, and sets all parameters.

    Args:
        policy, image, begin: as for `explain`; "stop" may be the last of `begin`.

    Raises:
        PolicyError: as for `explain`.
    """
    if isinstance(policy, StepwisePolicy):
        return policy.process(image, begin=_ids(policy, begin))[0][0]
    chosen = [choice.chosen for choice in explain(policy, image, begin).choices]
    return policy.plan_with(image, [name for name in chosen if name != STOP.name])[0]


def _ids(policy: SequencePolicy | StepwisePolicy | PosIspPolicy, names: Sequence[str]) -> list[int]:
    """Action ids of modules by their names.

    Raises:
        PolicyError: the policy has no such module.
    """
    known = list(_names(policy))
    for name in names:
        if name not in known:
            raise PolicyError(f"policy {policy.name}: has no module {name!r}; it has {', '.join(known)}")
    return [known.index(name) for name in names]


def _names(policy: SequencePolicy | StepwisePolicy | PosIspPolicy) -> tuple[str, ...]:
    """Names of the actions in the order of their ids."""
    ends = isinstance(policy, PosIspPolicy)
    return (*policy.header.modules, STOP.name) if ends else policy.header.modules


def _choice(
    names: Sequence[str], probs: Float[Tensor, " n"], chosen: int, value: float | None, seen: Small | None
) -> Choice:
    return Choice(dict(zip(names, probs.tolist(), strict=True)), names[chosen], value, seen)


def _of_sequence(policy: SequencePolicy, image: Image, begin: Sequence[int]) -> list[Choice]:
    """The choices of the sequence head."""
    network, names = policy.network, policy.header.modules
    observation = observe(image, policy.header.start, policy.header.module_set)
    embedding = network.embed(observation)
    stop = len(names) - 1
    state, used, wanted = network.begin(embedding), embedding.new_zeros(1, stop + 1), network.wanted(embedding)
    last, seen, choices = torch.full((1,), stop + 1, device=image.device), observation.planes[0, :3], list[Choice]()
    for step in range(policy.steps or network.horizon):
        state, logits = network.step(state, last, used, wanted)
        last = torch.full_like(last, begin[step]) if step < len(begin) else logits.argmax(dim=1)
        chosen = int(last)
        shown = ((seen + 1) / 2).clamp(0, 1) if step == 0 else None
        choices.append(_choice(names, logits.softmax(dim=1)[0], chosen, None, shown))
        if chosen == stop:
            break
        used = used.scatter(1, last[:, None], 1.0)
    return choices


def _of_steps(policy: StepwisePolicy, image: Image, begin: Sequence[int], critic: Critic | None) -> list[Choice]:
    """The choices of a policy that looks at the image before each step."""
    looks: list[Look] = []
    policy.process(image, begin=begin, trace=looks)
    choices = []
    for step, look in enumerate(looks):
        chosen = begin[step] if step < len(begin) else int(look.probs[0].argmax())
        value = None if critic is None else float(critic(look.view)[0])
        choices.append(_choice(policy.header.modules, look.probs[0], chosen, value, look.view[0, :3].clamp(0, 1)))
    return choices


def _of_pos_isp(policy: PosIspPolicy, begin: Sequence[int]) -> list[Choice]:
    """The choices of POS-ISP, which depend on no image; each module runs at most once."""
    probabilities: list[Tensor] = []
    order = policy.network.order(begin=begin, trace=probabilities).modules
    names = _names(policy)
    chosen = [*order, len(names) - 1][: len(probabilities)]
    limit = policy.steps or len(chosen)
    return [_choice(names, probs, one, None, None) for probs, one in zip(probabilities, chosen, strict=True)][:limit]
