"""What the ranks of a run have to agree on: whether they can share it, when they stop, and what they skipped."""

from pathlib import Path
from typing import Any

import torch

from adaptiveisp.errors import AdaptiveISPError, SilentError, UsageError
from adaptiveisp.training.distributed import Ranks
from adaptiveisp.training.methods.registry import METHODS, find_method
from adaptiveisp.training.pseudo_labels import Teacher
from adaptiveisp.utils.provenance import package_version


def require_shares(method: str, ranks: Ranks) -> None:
    """Refuses a method that does not split its iterations.

    Raises:
        UsageError: names those that do.
    """
    if not ranks.alone and not find_method(method).shares:
        able = ", ".join(name for name in METHODS.names() if find_method(name).shares)
        raise UsageError(
            f"torchrun: method {method} does not split its work; start it without torchrun, or choose {able}"
        )


def require_images(learner: Any, ranks: Ranks) -> None:
    """Refuses more ranks than an iteration has images, and makes the ranks known to the learner.

    Raises:
        UsageError: the method has too few images in an iteration.
    """
    if ranks.size > learner.most_ranks:
        raise UsageError(
            f"torchrun: an iteration has {learner.most_ranks} images for {ranks.size} ranks; start at most "
            f"{learner.most_ranks}, or raise batch"
        )
    learner.ranks = ranks


def require_same(ranks: Ranks, **facts: str) -> None:
    """Refuses ranks that would not compute the same, such as those of hosts with other data or another version.

    Args:
        ranks: of the run.
        facts: what has to be the same on all; underscores in the names become spaces.

    Raises:
        UsageError: names what differs, on the first rank.
        SilentError: the same on the others.
    """
    own = {"version": package_version(), "torch": torch.__version__, **facts}
    told = ranks.gather_objects(own)
    differing = [
        name.replace("_", " ") for name in own if any(theirs.get(name) != told[0].get(name) for theirs in told)
    ]
    if differing and not ranks.first:
        raise SilentError("the first rank tells what differs")
    if differing:
        raise UsageError(f"torchrun: the ranks differ in {', '.join(differing)}; give all of them the same")


def any_stops(ranks: Ranks, stopping: bool, done: object, folder: Path) -> bool:
    """Whether a signal stops the run on any rank.

    Args:
        ranks: of the run.
        stopping: whether a signal stops it on this one.
        done: numbers that say what the run has done so far, which are the same on all ranks.
        folder: the run folder, for errors.

    Raises:
        AdaptiveISPError: the ranks have not done the same.
    """
    if ranks.alone:
        return stopping
    told = ranks.gather_objects((stopping, done))
    if any(theirs != told[0][1] for _, theirs in told):
        raise AdaptiveISPError(
            f"{folder}: the ranks did not compute the same ({told[0][1]} and others); start them with the same "
            "versions of adaptiveisp and torch and the same data"
        )
    return any(theirs for theirs, _ in told)


def shared_notes(ranks: Ranks, skipped: dict[str, str], teacher: Teacher | None) -> dict[str, str]:
    """The skipped images of all ranks; the teacher takes over the answers of all.

    Args:
        ranks: of the run.
        skipped: image that this rank could not read → the reason.
        teacher: of this rank.
    """
    if ranks.alone:
        return skipped
    told = ranks.gather_objects((skipped, None if teacher is None else teacher.state_dict()))
    if teacher is not None:
        teacher.merge([state for _, state in told if state is not None])
    return {title: why for theirs, _ in told for title, why in theirs.items()}
