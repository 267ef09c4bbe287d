"""Files of bilateral-grid policies. The sizes of the network follow from the shapes of its tensors."""

from pathlib import Path

from adaptiveisp.errors import PipelineError, UsageError, WeightsError
from adaptiveisp.isp.bilateral_grid import N_COEFFICIENTS
from adaptiveisp.isp.registry import IspModule, find_module
from adaptiveisp.policies.bilateral_grid.networks import BilateralGridNetwork
from adaptiveisp.policies.checkpoint import BILATERAL_GRID, PolicyHeader, fill_network, read_policy, tensors_below
from adaptiveisp.policies.stepwise.networks import VIEW

STAGE = "bilateral_grid"
"""The module that states the grid; the last one of a header."""


def load_grid_file(path: Path) -> tuple[PolicyHeader, BilateralGridNetwork]:
    """The header and the network of a bilateral-grid policy's file, in evaluation mode.

    Raises:
        WeightsError: the file is missing, damaged, of another kind, or does not fit its own header.
    """
    header, tensors = read_policy(path)
    if header.kind != BILATERAL_GRID:
        raise WeightsError(
            f"{path}: is a policy of the kind {header.kind}, not {BILATERAL_GRID}; give a file of that kind"
        )
    ours = tensors_below(tensors, f"{BILATERAL_GRID}.")
    try:
        depth = ours["head.weight"].shape[0] // N_COEFFICIENTS
        knots = ours["guide.slopes"].shape[1]
        n_strided = sum(name.startswith("encoder.") and name.endswith(".weight") for name in ours)
        network = BilateralGridNetwork(VIEW >> n_strided, depth, knots, _denoiser(header, path))
    except (KeyError, IndexError, ValueError) as error:
        raise WeightsError(f"{path}: does not fit its network ({error}); save it again") from error
    fill_network(network, ours, path)
    return header, network.eval()


def _denoiser(header: PolicyHeader, path: Path) -> IspModule | None:
    """The module before the grid, if the header names one.

    Raises:
        WeightsError: it names other modules than a denoiser and the grid.
    """
    *before, last = header.modules
    if last != STAGE or len(before) > 1:
        raise WeightsError(
            f"{path}: names the modules {', '.join(header.modules)}, expected {STAGE} with at most one module before "
            "it; save it again"
        )
    try:
        return find_module(before[0], header.module_set) if before else None
    except (PipelineError, UsageError) as error:
        raise WeightsError(f"{path}: {error}") from None
