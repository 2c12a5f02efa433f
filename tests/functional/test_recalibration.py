"""More readmissions than before, of the same kinds of patients: answered by another calibration of the same model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from test_simulate import SIMULATE, copied, decisions, document, kill_once

from health_predict.adapters.registry import PREPROCESSOR
from health_predict.bundle.model import ENCODER, MODEL, Bundle, load_bundle
from health_predict.bundle.profile import read_reference
from health_predict.params import Params, SplitParams
from health_predict.steps.loop.decide import decide
from health_predict.store import layout
from health_predict.store.batches import read_arrival
from health_predict.store.bundles import fetch_bundle
from health_predict.store.ledger import read_ledger
from health_predict.store.monitoring_reports import read_judged, read_monitoring
from health_predict.store.reports import read_evaluation
from health_predict.store.tables import json_bytes, parse_table
from stores import Place, prepare

pytestmark = pytest.mark.slow

ROWS = 43_500
# Much to train on and small batches: a batch more is no reason for a training, and enough for the gate.
SPLIT = SplitParams(initial_share=0.735, train_share=0.80, validation_share=0.13, batches=2)
NAME = "label_shift"
SHIFTED = ("--families", "lightgbm", "--scenario", "label_shift", "--no-api")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A first model in production, and a batch with more readmissions scored by it. Nobody may write to it."""
    place = prepare(tmp_path_factory.mktemp("begun") / "store", ROWS, SPLIT)
    code, _, err = place.run(*SIMULATE, *SHIFTED, "--batches", "1")
    assert code == 0, err
    return place


@pytest.fixture(scope="module")
def replayed(begun: Place, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, dict[str, Any]]:
    """The batch after it, and the result. Nobody may write to the store."""
    place = copied(begun, tmp_path_factory.mktemp("replayed") / "store")
    code, out, err = place.run(*SIMULATE, *SHIFTED)
    assert code == 0, err
    return place.simulation(NAME), document(out)


def bundle_of(place: Place, version: str) -> tuple[Path, Bundle]:
    found = read_ledger(place.storage).version(version)
    folder = fetch_bundle(place.storage, lambda: place.registry, found, place.settings.cache / str(place.root.stem))
    return folder, load_bundle(folder)


def test_more_readmissions_are_recalibrated_which_brings_expected_closer_to_observed(replayed):
    place, found = replayed
    _, row = found["rows"]
    assert (row["action"], row["promoted"], row["version"]) == ("recalibrate", "2", "2")
    assert (found["retrainings"], found["recalibrations"], found["promotions"]) == (0, 1, 1)
    after, never = row["outcome"]["observed_expected"], row["outcome"]["observed_expected_never_retrained"]
    assert abs(after - 1) < abs(never - 1) / 2
    assert not place.storage.exists(layout.retraining_manifest(2))


def test_the_model_and_the_order_of_risks_stay_and_the_capacity_is_flagged(replayed):
    place, _ = replayed
    (old_folder, old), (folder, new) = bundle_of(place, "1"), bundle_of(place, "2")
    for name in (ENCODER, MODEL):
        assert (folder / name).read_bytes() == (old_folder / name).read_bytes()
    encounters = read_arrival(place.storage, 2)
    before, after = old.predict_proba(encounters), new.predict_proba(encounters)
    assert np.array_equal(np.argsort(before, kind="stable"), np.argsort(after, kind="stable"))
    calibrated_on = parse_table(place.storage.read(layout.recalibration_data(2, "validation")), "validation")
    flagged = new.predict_proba(calibrated_on) >= new.manifest.threshold
    assert new.manifest.capacity == old.manifest.capacity
    assert new.manifest.capacity - 0.01 < flagged.mean() <= new.manifest.capacity
    report = read_evaluation(place.storage, new.manifest.run_id)
    difference = report.comparison.champion.differences.auroc
    assert (difference.estimate, difference.lower, difference.upper) == (0.0, 0.0, 0.0)


def test_a_recalibrated_version_says_all_that_it_has_seen_and_what_is_new(replayed):
    place, _ = replayed
    (old_folder, old), (folder, new) = bundle_of(place, "1"), bundle_of(place, "2")
    validation, test = (place.root / layout.recalibration_data(2, part) for part in ("validation", "test"))
    patients, others = (set(pl.read_parquet(table)["patient_nbr"]) for table in (validation, test))
    assert not patients & others
    keys = [table.key for table in new.manifest.trained_on]
    assert keys == [*(table.key for table in old.manifest.trained_on), layout.recalibration_data(2, "validation")]
    before, now = (read_reference(one) for one in (old_folder, folder))
    assert now.scores != before.scores
    assert (now.fields, now.nulls, now.importance) == (before.fields, before.nulls, before.importance)
    assert new.manifest.percentiles == now.scores
    assert new.manifest.bands != old.manifest.bands
    reference_patient = new.predict_one(new.manifest.reference_encounter.values)
    assert new.manifest.percentiles[49] <= reference_patient <= new.manifest.percentiles[51]
    downloaded = place.registry.download(new.manifest.run_id, Path(PREPROCESSOR).parent.as_posix(), place.root)
    assert (downloaded / Path(PREPROCESSOR).name).exists()


def test_risks_that_a_recalibration_did_not_cure_retrain(replayed, tmp_path):
    place = copied(replayed[0], tmp_path / "store")
    storage, third = place.storage, layout.batch(3)
    decided = len(read_ledger(storage).entries)
    still_off = replace(read_judged(storage, 1), batch=2, version="2", decisions=decided)
    storage.write(layout.performance(2), json_bytes(msgspec.to_builtins(still_off)))
    watched = replace(read_monitoring(storage, layout.batch(2)), batch=3, batches=(3,), version="2", decisions=decided)
    storage.write(layout.drift_numbers(third), json_bytes(msgspec.to_builtins(watched)))
    storage.write(layout.drift_manifest(third), storage.read(layout.drift_manifest(layout.batch(2))))
    decided = decide(storage, Params(), 3)
    assert (decided.action, decided.version) == ("retrain", "2")
    assert "A recalibration was tried already." in " ".join(decided.reasons)
    assert decided.stock.batches == 2


def test_killed_after_the_promotion_it_is_not_recalibrated_again(begun, replayed, tmp_path):
    place = copied(begun, tmp_path / "store")
    world = place.simulation(NAME)
    kill_once(place, lambda: read_ledger(world.storage).production != "1", *SHIFTED)
    code, out, err = place.run(*SIMULATE, *SHIFTED)
    assert code == 0, err
    assert decisions(document(out)) == decisions(replayed[1])
    promoted = [one for one in read_ledger(world.storage).entries if one.decision == "promoted"]
    assert [one.production for one in promoted] == ["1", "2"]
