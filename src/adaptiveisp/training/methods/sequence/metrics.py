"""The log line of an iteration of the sequence method; docs/methods/sequence.md explains each key."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from adaptiveisp.isp.module import IspModule
from adaptiveisp.policies.sequence.networks import Actions
from adaptiveisp.training.methods.learner import Metrics


def measured(
    modules: Sequence[IspModule],
    terms: Mapping[str, Float[Tensor, " batch"]],
    losses: Mapping[str, Float[Tensor, ""]],
    norms: dict[str, float],
    entropy: Float[Tensor, " batch"],
    loss: Float[Tensor, " batch"],
    actions: Actions,
) -> Metrics:
    """Means over the batch, and the number of times that each module was chosen.

    Args:
        modules: in the order of action ids, `STOP` last.
        terms: of the reward, by name.
        losses, norms: by part.
        entropy: of the choices.
        loss: of the detector.
        actions: the candidates.
    """
    return {
        "reward": {name: float(term.detach().mean()) for name, term in terms.items()},
        "loss": {name: float(value.detach()) for name, value in losses.items()},
        "gradient_norm": norms,
        "entropy": float(entropy.detach().mean()),
        "detector_loss": float(loss.detach().mean()),
        "modules": {m.name: int((actions == i).sum()) for i, m in enumerate(modules[:-1])},
    }
