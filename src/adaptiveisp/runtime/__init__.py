"""The names of the distribution `adaptiveisp-runtime`, which runs exported graphs without PyTorch."""

try:
    from adaptiveisp_runtime import *  # noqa: F403
    from adaptiveisp_runtime import __all__
except ModuleNotFoundError as error:
    if error.name != "adaptiveisp_runtime":
        raise
    raise ModuleNotFoundError(
        "adaptiveisp.runtime needs the distribution adaptiveisp-runtime; install it: pip install ./runtime in a clone",
        name="adaptiveisp_runtime",
    ) from error

__all__ = [*__all__]
