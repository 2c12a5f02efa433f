from collections.abc import Iterator

import pytest
from world import World, stub_trainer


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def world(made: World) -> Iterator[World]:
    """The world of this test run, with its trainer and its failpoints in place while a module's tests run."""
    with stub_trainer(made):
        yield made
