"""How the sequence method samples: the candidate pipelines of an image, and the parameters under exploration."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adaptiveisp.policies.sequence.networks import Actions, SequenceNetwork
from adaptiveisp.training.methods.sequence.settings import SequenceConfig
from adaptiveisp.training.rl.listed_pipelines import ListedPipelines
from adaptiveisp.training.rl.pipeline_edits import edited


@torch.no_grad()
def sample_candidates(
    network: SequenceNetwork,
    embedding: Float[Tensor, "images features"],
    config: SequenceConfig,
    temperature: float,
    generator: torch.Generator,
) -> Actions:
    """The candidates of each image, those of an image next to each other in the batch.

    Args:
        network: draws the sequences.
        embedding: of each image.
        config: says how candidates are drawn, and how many.
        temperature: of the softmax while sampling.
        generator: draws the random numbers.
    """
    group_size = config.group_size
    if config.candidates == "listed":
        return listed_actions(config).to(embedding.device).repeat(len(embedding), 1)
    if config.candidates == "samples":
        return network.sample(embedding.repeat_interleave(group_size, dim=0), generator, temperature)
    first = network.sample(embedding, generator, temperature)
    stop = len(network.widths) - 1
    rows = [row for base in first.cpu() for row in (base, *edited(base, stop, group_size - 1, generator))]
    return torch.stack(rows).to(embedding.device)


def listed_actions(config: SequenceConfig) -> Actions:
    """The listed pipelines as action ids, one in each row."""
    ids = {name: index for index, name in enumerate(config.chosen)}
    stop = len(ids)
    rows = [[ids[name] for name in pipeline] for pipeline in config.pipelines]
    return torch.tensor([row + [stop] * (config.horizon - len(row)) for row in rows])


def sample_experts(
    config: SequenceConfig, order: Int[Tensor, "1 length"], n: int, generator: torch.Generator
) -> Actions:
    """The sequences that the imitation warm-up imitates.

    Args:
        config: says whether candidates are listed.
        order: the expert modules, in one row; they are taken unless candidates are listed.
        n: number of sequences.
        generator: draws one of the listed pipelines for each.
    """
    if config.candidates != "listed":
        return order.expand(n, -1)
    return listed_actions(config)[torch.randint(len(config.pipelines), (n,), generator=generator)].to(order.device)


def recalled_images(
    listed: ListedPipelines,
    network: SequenceNetwork,
    config: SequenceConfig,
    temperature: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "images n"], Float[Tensor, "images n"]]:
    """Rewards without costs, and ln π, of all listed pipelines for remembered images.

    Args:
        listed: remembers the images.
        network: gives ln π.
        config: lists the pipelines.
        temperature: of the softmax.
        generator: draws the images.
    """
    embedding, worth = listed.recalled(generator)
    n = config.group_size
    actions = listed_actions(config).to(embedding.device).repeat(len(embedding), 1)
    log_prob, _, _ = network.log_probs(embedding.repeat_interleave(n, dim=0), actions, temperature)
    return worth, log_prob.view(-1, n)


def sample_logits(
    logits: Float[Tensor, "batch n_logits"],
    actions: Actions,
    widths: Sequence[int],
    deviation: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "batch n_logits"], Float[Tensor, " batch"]]:
    """The sampled z and the logarithm of their density up to a constant; z itself and 0 without exploration.

    Of two candidates of an image one adds the noise that the other subtracts. If their modules are the same, their
    rewards then differ by the noise only.

    Args:
        logits: z of the network.
        actions: the candidates; only parameters of their modules count for the density.
        widths: number of parameters of each module, in the order of action ids.
        deviation: σ, standard deviation of the noise; 0 for none.
        generator: draws the noise.
    """
    if not deviation:
        return logits, logits.new_zeros(len(logits))
    half = torch.randn(len(logits) // 2, logits.shape[1], generator=generator).to(logits)
    tried = logits.detach() + deviation * torch.stack([half, -half], dim=1).flatten(0, 1)
    ran = logits.new_zeros(len(logits), len(widths)).scatter_(1, actions, 1.0)
    squares = ((tried - logits) / deviation).square() * ran.repeat_interleave(
        torch.tensor(widths, device=logits.device), dim=1
    )
    return tried, -squares.sum(dim=1) / 2
