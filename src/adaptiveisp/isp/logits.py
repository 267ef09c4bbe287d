"""A pipeline's parameters as unbounded numbers z, one row a module, for searches that know no bounds."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, tensor

from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.pipeline import Pipeline, Stage

Row = Float[Tensor, " n_params"]

GIVEN_MARGIN = 0.001
"""Share of a range by which a given value keeps off its ends; neutral values keep off 2 %, see `Param.unsquash`."""


def starting_row(module: IspModule, values: Mapping[str, float]) -> Row:
    """The z of each parameter's value, or of its neutral value where none is given; float32.

    Args:
        module: declares the parameters.
        values: in physical units, by name.

    >>> from adaptiveisp.isp.registry import find_module
    >>> starting_row(find_module("exposure", "wide"), {}).tolist()
    [0.0]
    """
    neutral = module.logits_from_params(module.neutral_params)
    if not values:
        return tensor(neutral)
    logits = module.logits_from_params({**module.neutral_params, **values}, margin=GIVEN_MARGIN)
    if module.inverse is None:
        pairs = zip(module.params, logits, neutral, strict=True)
        logits = [ours if param.name in values else usual for param, ours, usual in pairs]
    return tensor(logits)


def stage_of(module: IspModule, row: Row) -> Stage:
    """The module with the physical values of a row of z."""
    values = module.params_from_logits(row.detach()[None])[0].tolist() if module.params else []
    return Stage(module.name, dict(zip((param.name for param in module.params), values, strict=True)))


def pipeline_of(modules: Sequence[IspModule], rows: Sequence[Float[Tensor, " _"]], module_set: str) -> Pipeline:
    """The pipeline of these modules with the physical values of their rows of z; a row is empty without parameters.

    Raises:
        PipelineError: values that are each in range are invalid together, see `IspModule.forbidden`.
    """
    return Pipeline(tuple(stage_of(m, row) for m, row in zip(modules, rows, strict=True)), module_set)
