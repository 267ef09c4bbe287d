"""The stages of a pipeline for readers: module, and each parameter with its value and unit."""

from typing import NamedTuple

from adaptiveisp.isp.pipeline import Pipeline

CAMERA_STEPS, NO_MODULE = "the camera's own development", "no module"
"""What stands in the place of modules: for `camera`, which has no pipeline, and for a pipeline without stages."""
ARROW = " \N{RIGHTWARDS ARROW} "
LARGEST_PLAIN = 1e4
"""Values from here on are written with an exponent."""


class Value(NamedTuple):
    """One parameter: its name, its value as text, and its unit, "" where it has none."""

    name: str
    text: str
    unit: str


class StageText(NamedTuple):
    """One stage: its module and its parameters."""

    module: str
    values: tuple[Value, ...]

    @property
    def line(self) -> str:
        """The parameters on one line, for instance "ev 2.5 stops"; "" for a module without parameters."""
        return ", ".join(" ".join(part for part in value if part) for value in self.values)


def stage_texts(pipeline: Pipeline | None) -> tuple[StageText, ...]:
    """The stages of a pipeline in physical units, in the order they run; empty where no pipeline ran."""
    if pipeline is None:
        return ()
    return tuple(
        StageText(
            stage.module,
            tuple(Value(param.name, value_text(stage.params[param.name]), param.unit) for param in module.params),
        )
        for stage, module in zip(pipeline.stages, pipeline.modules, strict=True)
    )


def value_text(value: float) -> str:
    """A value with three significant digits and a true minus sign.

    >>> value_text(-0.12345), value_text(416.0), value_text(0.0)
    ('−0.123', '416', '0')
    """
    text = f"{value:.3g}" if abs(value) < LARGEST_PLAIN and (value == 0 or abs(value) >= 1e-3) else f"{value:.2e}"
    return text.replace("-", "\N{MINUS SIGN}")


def names_line(pipeline: Pipeline | None) -> str:
    """The modules of a pipeline on one line, in the order they run."""
    if pipeline is None:
        return CAMERA_STEPS
    return ARROW.join(stage.module for stage in pipeline.stages) or NO_MODULE
