"""The training methods by the names of the command line, and how users add their own."""

from adaptiveisp.errors import UsageError
from adaptiveisp.training.methods import bilateral_grid, cma_es, fixed, random_search
from adaptiveisp.training.methods.actor_critic import settings as actor_critic_settings
from adaptiveisp.training.methods.actor_critic.learner import ActorCritic
from adaptiveisp.training.methods.learner import Learner, Method, NonFiniteLossError
from adaptiveisp.training.methods.sequence import settings as sequence_settings
from adaptiveisp.training.methods.sequence.learner import SequenceLearner
from adaptiveisp.utils.registry import Registry


def _checked(origin: str, value: object) -> Method:
    """The value, if it is a method with a preset.

    Raises:
        UsageError: it is not.
    """
    if not isinstance(value, Method):
        raise UsageError(f"method {origin}: give a Method of adaptiveisp, not {type(value).__name__}")
    if not value.presets:
        raise UsageError(f"method {origin}: has no presets; give it at least one, which is its default")
    return value


METHODS: Registry[Method] = Registry("method", "adaptiveisp.methods", "--method", _checked)
"""Every method by its name."""


def register_method(name: str, method: Method) -> Method:
    """Makes a training method available under a name, for `train` and the setting `method`.

    Args:
        name: letters, digits, "-" and "_", at most 64.
        method: its settings, presets and learner.

    Returns:
        The method.

    Raises:
        UsageError: the name is taken or cannot be one, or `method` is not a `Method` or has no presets.
    """
    return METHODS.register(name, method)


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        UsageError: there is no such method.
    """
    if name.replace("-", "_") == "greedy_oracle":
        raise UsageError(
            f"{name!r} is not a training method: it needs the labels of each image; use it as an upper bound in "
            "`adaptiveisp eval --policy greedy-oracle`"
        )
    return METHODS.find(name)


register_method(
    "actor_critic",
    Method(actor_critic_settings.ActorCriticConfig, actor_critic_settings.PRESETS, ActorCritic, shares=True),
)
register_method(
    "sequence", Method(sequence_settings.SequenceConfig, sequence_settings.PRESETS, SequenceLearner, shares=True)
)
register_method("fixed", Method(fixed.FixedConfig, fixed.PRESETS, fixed.Fixed, shares=True))
register_method(
    "bilateral_grid",
    Method(bilateral_grid.BilateralGridConfig, bilateral_grid.PRESETS, bilateral_grid.BilateralGrid),
)
register_method("cma_es", Method(cma_es.CmaEsConfig, cma_es.PRESETS, cma_es.CmaEs, needs_gradients=False))
register_method(
    "random_search",
    Method(random_search.RandomSearchConfig, random_search.PRESETS, random_search.RandomSearch, needs_gradients=False),
)

__all__ = ["METHODS", "Learner", "Method", "NonFiniteLossError", "find_method", "register_method"]
