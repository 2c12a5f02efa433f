"""What a supervisor does with what its looks find: a service is told of what is new, and a bad bundle is not fetched
for ever."""

import shutil
import signal
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from health_predict.cli.serve import ENDED, MOST_BACK_OFF, TOLD, HandOver, Looks
from health_predict.errors import TrackingError


class Process:
    """A service that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def send_signal(self, number: int) -> None:
        self.told.append(number)


@pytest.fixture
def service() -> Any:
    return Process()


def folder(parent: Path, name: str) -> Path:
    """A new folder, also where there was one of that name."""
    fresh = parent / f"fresh-{name}"
    fresh.mkdir()
    if (parent / name).exists():
        (parent / name).rename(parent / "before")
    fresh.rename(parent / name)
    shutil.rmtree(parent / "before", ignore_errors=True)
    return parent / name


def test_a_version_is_handed_over_once(service, tmp_path):
    hand_over = HandOver(tmp_path / "link", service, watch_seconds=30)
    first, second = folder(tmp_path, "1"), folder(tmp_path, "2")
    for found in (first, first, second, second):
        hand_over.take(found)
    assert service.told == [signal.SIGHUP] * 2
    assert (tmp_path / "link").resolve() == second
    assert hand_over.pause == 30


def test_a_bundle_that_is_made_again_and_again_is_looked_for_less_and_less(service, tmp_path):
    hand_over, pauses = HandOver(tmp_path / "link", service, watch_seconds=30), []
    for _ in range(6):
        hand_over.take(folder(tmp_path, "1"))
        pauses.append(hand_over.pause)
    assert pauses == [30, 60, 120, 240, 240, 240]
    assert pauses[-1] == 30 * MOST_BACK_OFF
    assert len(service.told) == 6  # it may be whole this time
    hand_over.take(tmp_path / "1")
    assert hand_over.pause == 30


def test_a_registry_that_is_down_is_asked_less_and_less_until_it_answers(service, tmp_path, capsys):
    hand_over, pauses = HandOver(tmp_path / "link", service, watch_seconds=1), []
    for _ in range(5):
        hand_over.explain(TrackingError("MLflow does not answer"))
        pauses.append(hand_over.pause)
    assert pauses == [2, 4, 8, 8, 8]
    hand_over.take(folder(tmp_path, "1"))
    assert hand_over.pause == 1
    hand_over.explain(TrackingError("MLflow does not answer"))
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "no model can be served yet: MLflow does not answer (looking again in 2 s)"
    assert said[-1].startswith("the model in service stays: MLflow does not answer")


def test_a_folder_that_is_gone_again_changes_nothing(service, tmp_path, capsys):
    wakes: SimpleQueue[Any] = SimpleQueue()

    def resolve() -> Path:
        wakes.put(tmp_path / "gone")
        wakes.put(ENDED)
        return folder(tmp_path, "1")

    HandOver(tmp_path / "link", service, watch_seconds=30).run(Looks(resolve, wakes), wakes)
    assert service.told == []
    assert "no model can be served yet" in capsys.readouterr().err


def test_without_watch_the_first_error_ends_it_and_a_later_one_does_not(service, tmp_path):
    hand_over = HandOver(tmp_path / "link", service, watch_seconds=None)
    with pytest.raises(TrackingError):
        hand_over.explain(TrackingError("MLflow does not answer"))
    hand_over.take(folder(tmp_path, "1"))
    hand_over.explain(TrackingError("MLflow does not answer"))
    assert hand_over.pause is None


def test_a_signal_to_look_that_comes_during_a_look_is_heeded_after_it(service, tmp_path):
    wakes: SimpleQueue[Any] = SimpleQueue()
    found = iter([folder(tmp_path, "1"), folder(tmp_path, "2")])

    def resolve() -> Path:
        latest = next(found)
        wakes.put(TOLD if latest.name == "1" else ENDED)
        return latest

    hand_over, looks = HandOver(tmp_path / "link", service, watch_seconds=None), Looks(resolve, wakes)
    hand_over.run(looks, wakes)
    while (wake := wakes.get(timeout=10)) != tmp_path / "2":
        assert wake is not None
