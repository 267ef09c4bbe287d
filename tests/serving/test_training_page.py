"""The training page follows runs by their files, whole or half written, and writes none."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from adaptiveisp.serving.entries import FolderEntry
from adaptiveisp.serving.opening import kind_of
from adaptiveisp.serving.tail import Tail
from adaptiveisp.serving.training_routes import RunReader, thinned
from tests.conftest import REPOSITORY
from tests.support.browser import opened_page, serious, waited
from tests.support.photos import labelled_photos
from tests.support.training_runs import QUICK, train_arguments
from tests.support.view_server import running_viewer

CONFIG = "train: {method: sequence, budget: 40, seed: 3}\nsettings: {}\n"


def line(iteration: int, **more: Any) -> str:
    modules = {"exposure": 3, "gamma": 1} if iteration <= 150 else {"exposure": 0, "gamma": 4}
    content = {"iteration": iteration, "passes": 4 * iteration, "reward": {"detection": -iteration}, "modules": modules}
    return json.dumps({**content, **more}) + "\n"


def run_folder(home: Path, iterations: int, name: str = "RUN") -> Path:
    run = home / name
    run.mkdir()
    (run / "config.yaml").write_text(CONFIG)
    (run / "metrics.jsonl").write_text("".join(line(i) for i in range(1, iterations + 1)))
    return run


def test_a_growing_file_is_read_line_by_line(tmp_path: Path) -> None:
    tail, path = Tail(1 << 20), tmp_path / "log.jsonl"
    assert not tail.update(path) and tail.lines == []
    path.write_text('{"a": 1}\n{"a": 2')
    assert tail.update(path) and tail.lines == [{"a": 1}]
    assert not tail.update(path)
    with path.open("a") as file:
        file.write('2}\nno json\n[1]\n{"a": 3}\n')
    assert tail.update(path) and tail.lines == [{"a": 1}, {"a": 22}, {"a": 3}]
    version = tail.version
    path.write_text('{"a": 9}\n')  # cut, as when a run is resumed
    assert tail.update(path) and tail.lines == [{"a": 9}] and tail.version > version
    path.unlink()
    assert tail.update(path) and tail.lines == []


def test_the_bytes_of_a_log_are_bounded(tmp_path: Path) -> None:
    tail, path = Tail(25), tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n' * 10)
    tail.update(path)
    assert len(tail.lines) == 2


def test_curves_and_shares_of_a_run(tmp_path: Path) -> None:
    run = run_folder(tmp_path, 220)
    (run / "dev.jsonl").write_text('{"iteration": 0, "ap50": 0.2, "auto-exposure": {"ap50": 0.1}}\n')
    (run / "timing.jsonl").write_text('{"iteration": 1, "render": 1.5, "detector": 2.5}\n' * 2)
    found = RunReader(FolderEntry("RUN", run)).read()
    assert found["curves"]["reward/detection"][-1] == (220.0, -220.0)
    # Of the last 100 iterations 30 chose exposure three times in four.
    assert found["modules"]["exposure"][-1] == (220.0, pytest.approx(0.3 * 0.75))
    assert found["dev"] == [{"iteration": 0, "ap50": 0.2, "auto-exposure/ap50": 0.1}] and found["seconds"] == 8.0
    assert found["config"] == {"method": "sequence", "budget": 40, "seed": 3}
    assert found["state"]["state"] == "running" and found["state"]["passes"] == 880


def test_a_run_is_running_stopped_or_finished(tmp_path: Path) -> None:
    run = run_folder(tmp_path, 5)
    reader = RunReader(FolderEntry("RUN", run))
    os.utime(run / "metrics.jsonl", (time.time() - 1000,) * 2)
    assert reader.read()["state"]["state"] == "stopped"
    (run / "metrics.jsonl").write_text("".join(line(i) for i in range(1, 11)))
    os.utime(run / "metrics.jsonl", (time.time() - 1000,) * 2)
    assert reader.read()["state"]["state"] == "running"  # after the last pass come the last scores on dev
    os.utime(run / "metrics.jsonl", (time.time() - 100000,) * 2)
    assert reader.read()["state"]["state"] == "stopped"
    (run / "summary.json").write_text("{}")
    assert reader.read()["state"]["state"] == "finished"


def test_long_curves_are_thinned_to_means() -> None:
    points = [(float(i), 2.0 * i) for i in range(1000)]
    found = thinned(points, 100)
    assert len(found) == 100 and found[0] == (4.5, 9.0) and found[-1] == (994.5, 1989.0)


def test_an_unchanged_run_is_said_in_a_word(tmp_path: Path) -> None:
    run = run_folder(tmp_path, 3)
    assert kind_of(run) == "training"
    with running_viewer([run]) as viewer:
        key = viewer.catalogue.runs.items()[0][0]
        first = viewer.post("/api/training/read", run=key, version=-1).json
        assert viewer.post("/api/training/read", run=key, version=first["version"]).json["unchanged"]
        with (run / "metrics.jsonl").open("a") as file:
            file.write(line(4))
        assert viewer.post("/api/training/read", run=key, version=first["version"]).json["state"]["iteration"] == 4
        assert viewer.post("/api/training/picture", run=key, name="../config.yaml").status == 400
        assert viewer.post("/api/training/picture", run=key, name="dev.png").status == 422
        assert viewer.post("/api/training/read", run="../RUN").status == 404


def test_damaged_logs_break_nothing(tmp_path: Path) -> None:
    run = run_folder(tmp_path, 2)
    odd = ['{"iteration": "x", "modules": [1]}', '{"iteration": 3, "modules": {"a": "b"}, "reward": null}', "[]", "{"]
    with (run / "metrics.jsonl").open("a") as file:
        file.write("\n".join(odd) + "\n")
    (run / "config.yaml").write_text("train: [1, 2]\n")
    (run / "dev.jsonl").write_bytes(b"\xff\xfe\n{}\n")
    with running_viewer([run]) as viewer:
        answer = viewer.post("/api/training/read", run=viewer.catalogue.runs.items()[0][0], version=-1)
    assert answer.status == 200, answer.body


@pytest.mark.long
def test_a_curve_that_rounding_alone_changes_is_drawn(browser: Any, tmp_path: Path) -> None:
    run = run_folder(tmp_path, 1)
    values = (0.1, 0.1 + 1.4e-17, 0.1, 3.0, 3.0, 3.0000000000000004)
    more = [line(i, worth={"loss": v, "other": values[-i]}, big={"value": 1e6 + i}) for i, v in enumerate(values, 1)]
    (run / "metrics.jsonl").write_text("".join(more[:3]))
    with running_viewer([run]) as viewer, opened_page(browser, viewer.server.address) as page:
        waited(page, "settled", 0)
        titles = page.locator(".charts figcaption").all_inner_texts()
        assert {"reward/detection", "worth/loss", "worth/other", "big/value"} <= set(titles)
        for title in ("worth/other", "big/value"):
            chart = page.locator(".charts figure", has_text=title)
            labels = chart.locator("svg.chart text[text-anchor=end]").all_text_contents()
            assert 2 <= len(labels) <= 10 and len(set(labels)) == len(labels), (title, labels)


@pytest.mark.long
def test_a_run_is_followed_while_it_trains(browser: Any, axe: str, tmp_path: Path) -> None:
    labelled_photos(tmp_path / "set", 4, 96, 72)
    command = [sys.executable, "-m", "adaptiveisp", *train_arguments("RUN", 400, ()), *QUICK]
    paths = os.pathsep.join((str(REPOSITORY / "src"), str(REPOSITORY)))
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=tmp_path / "set", env=environment) as training:
        run = tmp_path / "set" / "RUN"
        while not (run / "metrics.jsonl").is_file() or not (run / "metrics.jsonl").stat().st_size:
            assert training.poll() in (None, 0)
            time.sleep(0.1)
        before = sorted(path.name for path in run.iterdir())
        with running_viewer([run]) as viewer, opened_page(browser, viewer.server.address) as page:
            waited(page, "settled", 0)
            assert page.title().startswith("Training")
            passes = page.locator(".run-states tbody td").nth(1)
            first = passes.inner_text()
            assert training.wait(180) == 0
            page.locator(".run-states .chip", has_text="finished").wait_for(timeout=30000)
            assert passes.inner_text() == "400 of 400" and first.endswith("of 400")
            assert page.locator(".chart").count() >= 1
            assert not serious(page, axe)
        assert set(before) <= {path.name for path in run.iterdir()}
