"""Several ranks compute what one process computes, and end together when one of them is lost."""

import math
import os
import signal
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from adaptiveisp.cli.parser import main
from adaptiveisp.errors import SilentError, UsageError
from adaptiveisp.training.distributed import ALONE, LostRankError, Ranks, join
from adaptiveisp.training.pseudo_labels import Teacher
from adaptiveisp.training.shared_run import any_stops, require_images, require_same, require_shares
from adaptiveisp.types import Annotation
from adaptiveisp.utils.torchrun import place_of_process
from tests.support.fake_detector import RedDetector
from tests.support.ranks import SETTINGS, flat, in_ranks, learner, record


def check_same(one: dict[str, Any], many: dict[str, Any], tolerance: float) -> None:
    """The metrics of every iteration, the gradients of the first one and the final state agree."""
    assert len(one["metrics"]) == len(many["metrics"])
    for ours, theirs in zip(one["metrics"], many["metrics"], strict=True):
        assert ours.get("modules") == theirs.get("modules"), f"iteration {ours['iteration']} chose other modules"
        expected, found = flat(ours), flat(theirs)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            same = math.isclose(found[name], value, rel_tol=tolerance, abs_tol=tolerance)
            both_unknown = math.isnan(value) and math.isnan(found[name])
            assert same or both_unknown, (ours["iteration"], name, value, found[name])
    for ours, theirs in zip(one["gradients"], many["gradients"], strict=True):
        size = max(map(abs, ours), default=0.0)
        assert ours == pytest.approx(theirs, rel=tolerance, abs=tolerance * size)
    assert many["state"] == pytest.approx(one["state"], rel=10 * tolerance, abs=10 * tolerance)


def every(names: tuple[str, ...], iterations: int, dtype: torch.dtype) -> dict[str, Any]:
    return {name: record(name, iterations, dtype) for name in names}


def test_two_ranks_compute_what_one_does(tmp_path: Path) -> None:
    """In float64, where only the order of sums could differ; each image is read by one rank."""
    names = ("fixed", "sequence")
    alone = every(names, 3, torch.float64)
    for of_rank in in_ranks(2, partial(every, names, 3, torch.float64), tmp_path):
        for name in names:
            check_same(alone[name], of_rank[name], 1e-12)
            assert 0 < len(of_rank[name]["read"]) < len(alone[name]["read"])


@pytest.mark.long
@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("name", SETTINGS)
def test_thirty_iterations_agree_in_float64(name: str, size: int, tmp_path: Path) -> None:
    """Samples, edits, listed pipelines, exploration, groups, live batch norm and a bootstrap from the critic."""
    alone = record(name, 30, torch.float64)
    ranks = in_ranks(size, partial(record, name, 30, torch.float64), tmp_path)
    for of_rank in ranks:
        check_same(alone, of_rank, 1e-6)
    read = [number for of_rank in ranks for number in of_rank["read"]]
    assert sorted(read) == sorted(alone["read"])  # every image once, on one rank


@pytest.mark.long
@pytest.mark.parametrize("name", SETTINGS)
def test_the_first_iteration_agrees_in_float32(name: str, tmp_path: Path) -> None:
    alone = record(name, 1, torch.float32)
    for of_rank in in_ranks(2, partial(record, name, 1, torch.float32), tmp_path):
        check_same(alone, of_rank, 1e-5)


def lose_a_rank(how: str) -> str:
    ranks = join(timeout=3)
    ranks.gather(torch.ones(1), [1, 1])
    if ranks.rank == 1:
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(8)
        return ""
    began = time.monotonic()
    with pytest.raises(LostRankError) as caught:
        ranks.gather(torch.ones(1), [1, 1])
    assert time.monotonic() - began < 7
    return str(caught.value)


@pytest.mark.long
@pytest.mark.parametrize(("how", "what"), [("killed", "has ended"), ("slow", "did not answer within 3 s")])
def test_a_lost_rank_is_one_line(how: str, what: str, tmp_path: Path) -> None:
    message = in_ranks(2, partial(lose_a_rank, how), tmp_path)[0]
    assert message == f"rank 0 of 2: another rank {what}; see its message, then start all ranks again"


def agree() -> list[object]:
    """What the ranks of a run agree on, in one process for each."""
    ranks = join()
    found: list[object] = [ranks.on_first(os.getpid), ranks.gather_objects(ranks.rank)]
    found.append(ranks.gather(torch.full((ranks.rank + 1, 2), ranks.rank), [1, 2]).tolist())
    found.append(any_stops(ranks, ranks.rank == 1, "the same", Path("run")))
    weights = torch.arange(16.0).view(1, 2, 2, 4).to(memory_format=torch.channels_last) + ranks.rank
    (same,) = ranks.same(weights)
    found.append([same.tolist(), same.stride() == weights.stride()])

    def fails_on_second() -> None:
        if ranks.rank == 1:
            raise UsageError("no such thing")

    with pytest.raises((UsageError, SilentError)) as caught:
        ranks.together(fails_on_second)
    found.append(type(caught.value).__name__)
    ranks.leave()
    return found


def test_ranks_agree(tmp_path: Path) -> None:
    first, second = in_ranks(2, agree, tmp_path)
    assert first[:5] == second[:5]
    weights = torch.arange(16.0).view(1, 2, 2, 4).tolist()
    assert first[1:5] == [[0, 1], [[0, 0], [1, 1], [1, 1]], True, [weights, True]]
    assert (first[5], second[5]) == ("SilentError", "UsageError")  # the one on which it failed tells the reason


def test_the_teachers_of_all_ranks_share_their_answers() -> None:
    """What all had labelled before counts once; later passes are added, and nothing is labelled again."""
    box = Annotation(47, (1.0, 2.0, 3.0, 4.0), 12.0)
    teachers = [Teacher(RedDetector(), 0.5) for _ in range(2)]
    for number, teacher in enumerate(teachers):
        teacher.answers["first"], teacher.passes = (box,), 5
        teacher.mark()
        teacher.answers[f"of rank {number}"] = ()
        teacher.passes += 4
    for _ in range(2):  # a second exchange without new images changes nothing
        states = [teacher.state_dict() for teacher in teachers]
        for teacher in teachers:
            teacher.merge(states)
            assert teacher.passes == 5 + 4 + 4
            assert teacher.answers == {"first": (box,), "of rank 0": (), "of rank 1": ()}


def test_what_cannot_be_shared_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"cma_es does not split its work.*actor_critic, sequence, fixed"):
        require_shares("cma_es", Ranks(0, 2))
    with pytest.raises(UsageError, match="has 4 images for 5 ranks"):
        require_images(learner("sequence", 8, torch.float32), Ranks(0, 5))
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert main(["run", "x.dng", "--out", "y"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "run does not split its work among 2 processes; start it without torchrun" in error
    monkeypatch.setenv("RANK", "1")
    assert main(["eval", "--data", "x", "--policy", "none", "--out", "y"]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("RANK", "2")
    with pytest.raises(UsageError, match="are no place among processes"):
        place_of_process()
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert place_of_process() is None


@dataclass(frozen=True)
class Told(Ranks):
    """Ranks of which the other one tells something else."""

    other: tuple[tuple[str, str], ...] = ()

    def gather_objects(self, own: Any) -> Any:
        theirs = {**own, **dict(self.other)}
        return [own, theirs] if self.first else [theirs, own]


def test_ranks_with_other_data_or_another_version_are_refused() -> None:
    require_same(ALONE, data="a")
    require_same(Told(0, 2), data="a")
    differing = (("data", "b"), ("version", "0.0"))
    with pytest.raises(UsageError, match="the ranks differ in version, data; give all of them the same"):
        require_same(Told(0, 2, other=differing), data="a", settings="s")
    with pytest.raises(SilentError):
        require_same(Told(1, 2, other=differing), data="a", settings="s")
