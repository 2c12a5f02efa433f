import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from health_predict.bundle.model import Bundle, load_bundle
from health_predict.serving.journal.log import Log
from serving.support import InProcess, Worker, export_bundle, running


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle trained on invented data. Nobody may write to it."""
    return export_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def bundle(bundle_folder: Path) -> Bundle:
    return load_bundle(bundle_folder)


@pytest.fixture(scope="session")
def worker(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """A worker with the default settings."""
    with running(bundle_folder, tmp_path_factory.mktemp("worker")) as started:
        started.wait_for_status("ok")
        yield started


@pytest.fixture
def client(worker: Worker) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=worker.url) as opened:
        yield opened


@pytest.fixture(scope="session")
def gateway(bundle_folder: Path) -> Iterator[InProcess]:
    """A gateway in this process, with the default limits."""
    with closing(Log(os.open(os.devnull, os.O_WRONLY))) as log, closing(InProcess(bundle_folder, log)) as made:
        yield made
