"""The ways to learn a policy: one file each, by the names of the command line."""

from adaptiveisp.errors import UsageError
from adaptiveisp.training.methods import cma_es, fixed, random_search
from adaptiveisp.training.methods.actor_critic import settings as actor_critic_settings
from adaptiveisp.training.methods.actor_critic.learner import ActorCritic
from adaptiveisp.training.methods.learner import Learner, Method, NonFiniteLossError
from adaptiveisp.training.methods.sequence import settings as sequence_settings
from adaptiveisp.training.methods.sequence.learner import SequenceLearner

METHODS: dict[str, Method] = {
    "actor_critic": Method(actor_critic_settings.ActorCriticConfig, actor_critic_settings.PRESETS, ActorCritic),
    "sequence": Method(sequence_settings.SequenceConfig, sequence_settings.PRESETS, SequenceLearner),
    "fixed": Method(fixed.FixedConfig, fixed.PRESETS, fixed.Fixed),
    "cma_es": Method(cma_es.CmaEsConfig, cma_es.PRESETS, cma_es.CmaEs, needs_gradients=False),
    "random_search": Method(
        random_search.RandomSearchConfig, random_search.PRESETS, random_search.RandomSearch, needs_gradients=False
    ),
}
"""Every method by its name."""


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        UsageError: there is none.
    """
    if name.replace("-", "_") == "greedy_oracle":
        raise UsageError(
            f"method {name!r} learns nothing: it needs each image's labels; use it as an upper bound in "
            "`adaptiveisp eval --policy greedy-oracle`"
        )
    if name not in METHODS:
        raise UsageError(f"method {name!r} does not exist; choose one of {', '.join(METHODS)}")
    return METHODS[name]


__all__ = ["METHODS", "Learner", "Method", "NonFiniteLossError", "find_method"]
