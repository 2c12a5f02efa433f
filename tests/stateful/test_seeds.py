"""Hospitals by the hundred, a seed each: what is handed over, loops and people at work, faults.

make seeds SEEDS=20000                        more of them, from the first on, as over night
.venv/bin/python tests/stateful/test_seeds.py SEED     one of them, with every access printed
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import pytest
from hospital import Founded, World
from stand_ins import StandIns, standing_in

pytestmark = pytest.mark.slow

SEEDS = int(os.environ.get("HEALTH_PREDICT_SEEDS", "400"))
CHUNK = 50  # seeds of a test, so that two cores share them
# Seeds that once failed, of the product or of a mutant of it.
REGRESSIONS = (152, 153, 167, 177, 199, 202, 214, 1063, 1069, 1115, 1175, 1205, 1208, 1264, 1302)


@pytest.fixture(scope="module")
def doubles() -> Iterator[StandIns]:
    with standing_in() as found:
        yield found


def found_hospital(doubles: StandIns) -> Founded:
    """A store whose first model is in production."""
    doubles.world = world = World(0, None)
    world._last()
    return Founded(dict(world.storage.files), world.database, world.models)


def play(doubles: StandIns, founded: Founded, seed: int, trace: bool = False) -> World:
    # One of eight begins with nothing in production.
    doubles.world = world = World(seed, None if seed % 8 == 7 else founded, trace)
    try:
        world.play()
    except BaseException as error:
        error.add_note(f"this is seed {seed}: python tests/stateful/test_seeds.py {seed}")
        raise
    return world


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_whatever_happens_each_thing_is_done_once_and_nothing_is_lost(doubles, founded, first):
    for seed in range(first, min(first + CHUNK, SEEDS)):
        play(doubles, founded, seed)


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_a_seed_that_once_failed(doubles, founded, seed):
    play(doubles, founded, seed)


@pytest.fixture(scope="module")
def founded(doubles: StandIns) -> Founded:
    return found_hospital(doubles)


if __name__ == "__main__":
    with standing_in() as found:
        hospital = found_hospital(found)
        for number in map(int, sys.argv[1:]):
            try:
                play(found, hospital, number, trace=True)
            finally:
                sys.stdout.write("\n".join(found.world.simulation.trace or ()) + "\n")
