"""Let a frozen object detector see better: per-image pipelines of differentiable ISP modules for raw images.

Names are imported when first used, so that `adaptiveisp --help` does not wait for torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from adaptiveisp.utils.old_paths import keep

if TYPE_CHECKING:
    from adaptiveisp.data.layouts import register_dataset as register_dataset
    from adaptiveisp.data.opening import open_dataset as open_dataset
    from adaptiveisp.data.synthesize import synthesize as synthesize
    from adaptiveisp.data.synthetic import SynthesisConfig as SynthesisConfig
    from adaptiveisp.deployment.api import export as export
    from adaptiveisp.detectors.loading import load_detector as load_detector
    from adaptiveisp.detectors.loading import register_detector as register_detector
    from adaptiveisp.errors import AdaptiveISPError as AdaptiveISPError
    from adaptiveisp.evaluation.api import evaluate as evaluate
    from adaptiveisp.evaluation.config import EvalConfig as EvalConfig
    from adaptiveisp.evaluation.report import Report as Report
    from adaptiveisp.inference.predictor import AdaptiveISP as AdaptiveISP
    from adaptiveisp.inference.result import Result as Result
    from adaptiveisp.isp.module import IspModule as IspModule
    from adaptiveisp.isp.module import Param as Param
    from adaptiveisp.isp.pipeline import Pipeline as Pipeline
    from adaptiveisp.isp.pipeline import Stage as Stage
    from adaptiveisp.isp.registry import register_module as register_module
    from adaptiveisp.policies.registry import load_policy as load_policy
    from adaptiveisp.policies.registry import register_policy as register_policy
    from adaptiveisp.raw.dng import write_dng as write_dng
    from adaptiveisp.raw.reader import BayerHeader as BayerHeader
    from adaptiveisp.raw.reader import read_raw as read_raw
    from adaptiveisp.training.config import TrainConfig as TrainConfig
    from adaptiveisp.training.config import load_recipe as load_recipe
    from adaptiveisp.training.methods.learner import Method as Method
    from adaptiveisp.training.methods.registry import register_method as register_method
    from adaptiveisp.training.rl.rewards import RewardInputs as RewardInputs
    from adaptiveisp.training.rl.rewards import register_reward as register_reward
    from adaptiveisp.training.runs import TrainSummary as TrainSummary
    from adaptiveisp.training.runs import train as train
    from adaptiveisp.types import Annotation as Annotation
    from adaptiveisp.types import Detections as Detections
    from adaptiveisp.types import Detector as Detector
    from adaptiveisp.types import RawImage as RawImage
    from adaptiveisp.types import Sample as Sample
    from adaptiveisp.types import Targets as Targets

_HOMES = {
    "AdaptiveISP": "inference.predictor",
    "AdaptiveISPError": "errors",
    "Annotation": "types",
    "BayerHeader": "raw.reader",
    "Detections": "types",
    "Detector": "types",
    "EvalConfig": "evaluation.config",
    "IspModule": "isp.module",
    "Method": "training.methods.learner",
    "Param": "isp.module",
    "Pipeline": "isp.pipeline",
    "RawImage": "types",
    "Report": "evaluation.report",
    "Result": "inference.result",
    "RewardInputs": "training.rl.rewards",
    "Sample": "types",
    "Stage": "isp.pipeline",
    "SynthesisConfig": "data.synthetic",
    "Targets": "types",
    "evaluate": "evaluation.api",
    "export": "deployment.api",
    "TrainConfig": "training.config",
    "TrainSummary": "training.runs",
    "load_detector": "detectors.loading",
    "load_policy": "policies.registry",
    "load_recipe": "training.config",
    "open_dataset": "data.opening",
    "read_raw": "raw.reader",
    "register_dataset": "data.layouts",
    "register_method": "training.methods.registry",
    "register_reward": "training.rl.rewards",
    "synthesize": "data.synthesize",
    "register_detector": "detectors.loading",
    "register_module": "isp.registry",
    "register_policy": "policies.registry",
    "train": "training.runs",
    "write_dng": "raw.dng",
}

__all__ = [*_HOMES]

keep(
    "adaptiveisp",
    {
        "datasets": {"open_dataset": "adaptiveisp.data.opening"},
        "dng": {"write_dng": "adaptiveisp.raw.dng"},
        "predictor": {"AdaptiveISP": "adaptiveisp.inference.predictor", "Result": "adaptiveisp.inference.result"},
        "zoo": {"load_policy": "adaptiveisp.policies.registry"},
    },
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from adaptiveisp.utils.provenance import package_version

        return package_version()
    if name not in _HOMES:
        raise AttributeError(f"module 'adaptiveisp' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"adaptiveisp.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
