"""Help texts show the values that the code uses."""

import argparse
from dataclasses import fields

import pytest

from adaptiveisp.cli.options import BITS_HELP, CAMERA_MATRICES, ILLUMINANTS, LIGHTS_HELP, NOISES
from adaptiveisp.cli.parser import build_parser
from adaptiveisp.cli.synth import FORMATS
from adaptiveisp.data import synthetic
from adaptiveisp.evaluation.config import EvalConfig
from adaptiveisp.raw import camera_matrices, illuminants, unprocess
from adaptiveisp.training.config import TrainConfig


def parser_of(command: str) -> argparse.ArgumentParser:
    (commands,) = (action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction))
    parser: argparse.ArgumentParser = commands.choices[command]
    return parser


def defaults_of(configuration: type) -> dict[str, object]:
    return {field.name: field.default for field in fields(configuration)}


@pytest.mark.parametrize(
    ("command", "configuration", "options"),
    [
        ("synth", synthetic.SynthesisConfig, ("draws", "noise", "format")),
        ("eval", synthetic.SynthesisConfig, ("draws", "noise")),
        ("eval", EvalConfig, ("resamples", "seed", "workers")),
        (
            "train",
            TrainConfig,
            ("method", "labels", "noise", "detector", "budget", "checkpoint_every", "dev_every", "seed"),
        ),
    ],
)
def test_help_shows_the_defaults_of_the_configuration(
    command: str, configuration: type, options: tuple[str, ...]
) -> None:
    parser = parser_of(command)
    actions = {action.option_strings[-1].strip("-").replace("-", "_"): action for action in parser._actions}
    for option in options:
        value = defaults_of(configuration)[option]
        action = actions[option]
        shown = (action.help or "") % {**vars(action), "prog": ""}
        assert f"(default {value})" in shown or f"{value} (default)" in shown, shown
        assert action.default in (None, value)


def test_help_names_the_lights_noises_and_formats_that_there_are() -> None:
    assert NOISES == unprocess.NOISES and FORMATS == synthetic.FORMATS
    assert tuple(camera_matrices.CAMERA_MATRICES) == CAMERA_MATRICES
    assert illuminants.ILLUMINANTS == ILLUMINANTS
    assert f"{unprocess.LEAST_BITS} to {unprocess.MOST_BITS}" in BITS_HELP
    for light, (low, high) in unprocess.LIGHTS.items():
        assert f"{light} {low:g} to {high:g}" in LIGHTS_HELP
