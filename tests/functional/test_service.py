"""A service for the length of a block: what it is handed, and what of the environment it must not have."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from factories import encounters
from health_predict.cli.service import service
from health_predict.data.schema import CLINICAL

pytestmark = pytest.mark.slow

TABLE = encounters(30)
ENCOUNTER = TABLE.select(field.name for field in CLINICAL).row(0, named=True)


@dataclass(frozen=True)
class Bundles:
    """Folders of versions 1 and 2."""

    first: Path
    second: Path


@pytest.fixture
def bundles(store) -> Bundles:
    registry = store.registry
    versions = [registry.register(run_id, {}) for run_id in (store.winner, store.other)]
    return Bundles(*(registry.fetch_bundle(version, store.root / "cache") for version in versions))


def test_a_version_is_taken_up_once_and_the_requests_until_then_are_counted(bundles):
    with service(bundles.first) as running:
        assert running.ask(TABLE).version == "1"
        assert running.take_up(bundles.second, "2", ENCOUNTER) > 0
        assert running.ask(TABLE).version == "2"
        assert running.take_up(bundles.second, "2", ENCOUNTER) == 0


def test_it_asks_for_no_key_and_writes_to_no_real_log(bundles, tmp_path, monkeypatch):
    monkeypatch.setenv("HEALTH_PREDICT_API_KEYS", f"ward:{'0' * 64}")
    monkeypatch.setenv("HEALTH_PREDICT_AUDIT_LOG", str(tmp_path / "audit.jsonl"))
    monkeypatch.setenv("HEALTH_PREDICT_PREDICTION_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("HEALTH_PREDICT_PREDICTION_LOG_KEY", "invented")
    with service(bundles.first) as running:
        assert len(running.ask(TABLE).probability) == len(TABLE)
    assert not (tmp_path / "audit.jsonl").exists()
    assert not (tmp_path / "log").exists()
