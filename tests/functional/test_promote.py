"""Decisions: what the gate says goes, one at a time, and the ledger and the aliases end up saying the same."""

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import msgspec
import pytest
from mlflow.tracking import MlflowClient

from health_predict.adapters.registry import BUNDLE, EVALUATION, HOLDER, PREVIOUS, PRODUCTION, Registry
from health_predict.bundle.model import MODEL, REFERENCE, load_bundle, write_bundle
from health_predict.errors import BundleError, ConflictError, Declined, StorageError, TrackingError
from health_predict.features.calibration import Calibration
from health_predict.params import GateParams, Params
from health_predict.steps.model.adopt import adopt
from health_predict.steps.model.evaluate import evaluate
from health_predict.steps.model.promote import promote
from health_predict.steps.model.rollback import rollback
from health_predict.steps.model.status import status
from health_predict.store import layout
from health_predict.store.ledger import Version, read_ledger
from health_predict.store.storage import Folder
from health_predict.workspace.production import Holder
from stores import workspace_of

# Anything that was compared on unseen encounters passes, so that what follows a yes can be tested.
LAX = GateParams(
    max_auroc_loss=2,
    max_average_precision_loss=2,
    max_auroc_loss_from_first=2,
    observed_expected=(0, 1e9),
    max_subgroup_auroc_loss=2,
    min_subgroup_auroc=0,
    max_flag_rate_ratio=1e9,
    max_ppv_loss=2,
)
STRICT = replace(LAX, min_rows=10**9)
WHO = "tester@here"


@pytest.fixture
def registry(store) -> Registry:
    return store.registry


@pytest.fixture
def compare(store, registry) -> Callable[[str], None]:
    """Evaluate a run against what is in production now."""
    return lambda run_id: evaluate(store.workspace, Params(), WHO, run_id) and None


def decisions(store) -> list[str]:
    return [found.decision for found in read_ledger(store.storage).entries if found.decision != "evaluated"]


def test_a_promotion_is_written_and_served_and_done_once(store, registry, compare):
    compare(store.winner)
    promoted = promote(store.workspace, LAX, WHO, None)
    assert (promoted.version.run_id, promoted.previous, promoted.skipped) == (store.winner, None, False)
    assert registry.at(PRODUCTION) == promoted.version
    asked, written = read_ledger(store.storage).entries
    assert (asked.decision, asked.question.look, asked.subject.run_id) == ("evaluated", 1, store.winner)
    assert written.question == asked.question
    assert written.who == WHO
    assert (written.decision, written.production, written.subject.run_id) == ("promoted", "1", store.winner)
    assert written.reasons
    assert {"auroc", "rows", "outcomes"} <= set(written.numbers)

    again = promote(store.workspace, LAX, WHO, store.winner)
    assert again.skipped
    assert again.version == promoted.version
    assert decisions(store) == ["promoted"]


def test_a_decline_leaves_the_champion_and_is_written_with_its_reasons(store, registry, compare):
    compare(store.winner)
    promote(store.workspace, LAX, WHO, store.winner)
    compare(store.other)
    with pytest.raises(Declined, match="at least 1000000000 needed") as declined:
        promote(store.workspace, STRICT, WHO, store.other)
    assert declined.value.exit_code == 99
    written = read_ledger(store.storage).entries[-1]
    assert (written.decision, written.subject.run_id, written.production) == ("declined", store.other, "1")
    assert written.reasons == declined.value.reasons
    assert registry.at(PRODUCTION).run_id == store.winner
    assert registry.at(PREVIOUS) is None


def test_a_run_that_was_not_evaluated_is_told_what_to_do(store, registry):
    with pytest.raises(StorageError, match="run `health-predict evaluate` first"):
        promote(store.workspace, LAX, WHO, store.winner)


def test_a_bundle_that_was_replaced_after_the_evaluation_is_not_promoted_on_it(store, registry, compare, tmp_path):
    compare(store.winner)
    shutil.copytree(registry.download(store.other, BUNDLE, tmp_path), tmp_path / "replaced" / BUNDLE)
    registry.log_folder(store.winner, tmp_path / "replaced")
    with pytest.raises(BundleError, match=f"run {store.winner} holds the bundle of another run, {store.other}"):
        promote(store.workspace, LAX, WHO, store.winner)
    assert decisions(store) == []


def test_a_model_that_was_altered_after_the_evaluation_is_evaluated_anew(store, registry, compare, tmp_path):
    compare(store.winner)
    bundle = registry.download(store.winner, BUNDLE, tmp_path / "before")
    found = load_bundle(bundle)
    calibration = found.manifest.calibration.then(Calibration(-3.0, 1.0))
    altered = msgspec.structs.replace(found.manifest, calibration=calibration)
    model, reference = ((bundle / name).read_bytes() for name in (MODEL, REFERENCE))
    write_bundle(tmp_path / "after" / BUNDLE, altered, found.encoder, model, reference)
    registry.log_folder(store.winner, tmp_path / "after")
    with pytest.raises(ConflictError, match=r"is not the model that was evaluated.*`health-predict evaluate` again"):
        promote(store.workspace, LAX, WHO, store.winner)
    assert decisions(store) == []
    again = evaluate(store.workspace, Params(), WHO, store.winner)
    assert (again.skipped, again.comparison.look) == (False, 2)
    assert promote(store.workspace, LAX, WHO, store.winner).version.version == "1"


def test_a_comparison_with_another_champion_decides_nothing(store, registry, compare):
    compare(store.winner)
    compare(store.other)
    promote(store.workspace, LAX, WHO, store.winner)
    with pytest.raises(ConflictError, match="compared with version None, and production is 1"):
        promote(store.workspace, LAX, WHO, store.other)
    assert decisions(store) == ["promoted"]


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(store, compare):
    compare(store.winner)
    compare(store.other)
    both = Barrier(2)

    class Meeting(Registry):
        """Lets both read the ledger and register before either writes."""

        def register(self, run_id: str, tags) -> Version:
            version = super().register(run_id, tags)
            both.wait(60)
            return version

    def decide(run_id: str) -> str:
        settings = store.settings
        registry = Meeting(settings.resolved_tracking_uri, settings.model_name, settings.artifact_root)
        try:
            return promote(workspace_of(store.storage, registry), LAX, WHO, run_id).version.run_id
        except ConflictError:
            return "told"

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(decide, (store.winner, store.other)))
    assert found.count("told") == 1
    assert decisions(store) == ["promoted"]
    written = read_ledger(store.storage).entries[-1]
    assert written.subject.run_id in found
    assert store.registry.at(PRODUCTION).run_id == written.subject.run_id


def promote_until_the_aliases_move(store, registry, run_id: str, monkeypatch) -> None:
    with monkeypatch.context() as stopped:
        stopped.setattr(Registry, "follow", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            promote(store.workspace, LAX, WHO, run_id)


def test_a_promotion_that_died_before_the_alias_moved_is_completed_by_the_same_command(
    store, registry, compare, monkeypatch
):
    compare(store.winner)
    promote_until_the_aliases_move(store, registry, store.winner, monkeypatch)
    assert registry.at(PRODUCTION) is None
    found = status(store.workspace)
    assert found.production.run_id == store.winner
    assert [f"health-predict promote {store.winner}` completes it" in problem for problem in found.problems] == [True]
    assert registry.at(PRODUCTION) is None  # a look changes nothing
    assert promote(store.workspace, LAX, WHO, store.winner).skipped
    assert registry.at(PRODUCTION).run_id == store.winner
    assert status(store.workspace).problems == ()
    assert decisions(store) == ["promoted"]


@pytest.fixture
def two_versions(store, registry, compare) -> None:
    for run_id in (store.other, store.winner):
        compare(run_id)
        promote(store.workspace, LAX, WHO, run_id)


def test_what_was_rolled_back_does_not_return_until_a_person_says_why(store, registry, compare, two_versions):
    found = rollback(store.workspace, WHO, "looks wrong")
    assert (found.version.run_id, found.left, found.previous) == (store.other, "2", None)
    assert (registry.at(PRODUCTION).version, registry.at(PREVIOUS)) == ("1", None)
    for _ in range(2):
        compare(store.winner)
        with pytest.raises(Declined, match=r"(?s)rolled back as version 2 on .* by tester@here \(looks wrong\)"):
            promote(store.workspace, LAX, WHO, store.winner)
    assert decisions(store) == ["promoted", "promoted", "rolled_back", "declined"]
    returned = promote(store.workspace, LAX, WHO, store.winner, allow_rolled_back="it was the feed")
    assert (returned.version.version, returned.previous) == ("2", "1")
    assert read_ledger(store.storage).entries[-1].allowed == "it was the feed"


def test_a_rollback_is_done_once_however_often_it_is_asked_for(store, registry, two_versions):
    rollback(store.workspace, WHO, "looks wrong")
    for options in ({}, {"if_production": "2"}, {"to": "1"}, {"to": "1", "if_production": "2"}):
        again = rollback(store.workspace, WHO, "looks wrong", **options)
        assert (again.version.version, again.skipped) == ("1", True)
    assert decisions(store) == ["promoted", "promoted", "rolled_back"]


def test_a_rollback_that_died_before_the_alias_moved_is_completed_and_not_undone(
    store, registry, two_versions, monkeypatch
):
    follow = Registry.follow

    def die_at_a_move(self, production: str | None, previous: str | None) -> bool:
        if self.at(PRODUCTION).version != production:
            raise KeyboardInterrupt
        return follow(self, production, previous)

    with monkeypatch.context() as stopped:
        stopped.setattr(Registry, "follow", die_at_a_move)
        with pytest.raises(KeyboardInterrupt):
            rollback(store.workspace, WHO, "looks wrong")
    assert registry.at(PRODUCTION).version == "2"
    assert rollback(store.workspace, WHO, "looks wrong").skipped
    assert registry.at(PRODUCTION).version == "1"


def test_a_rollback_of_a_version_that_is_not_in_production_changes_nothing(store, registry, two_versions):
    with pytest.raises(ConflictError, match="version 2 is in production, not 1"):
        rollback(store.workspace, WHO, "", if_production="1")
    assert decisions(store) == ["promoted", "promoted"]


def test_a_version_that_was_rolled_back_is_gone_back_to_only_by_name_and_with_a_reason(store, registry, two_versions):
    rollback(store.workspace, WHO, "looks wrong")
    with pytest.raises(ConflictError, match="no version before 1"):
        rollback(store.workspace, WHO, "", if_production="1")
    with pytest.raises(Declined, match="It was rolled back on"):
        rollback(store.workspace, WHO, "", to="2")
    found = rollback(store.workspace, WHO, "", to="2", allow_rolled_back="it was right")
    assert (found.version.version, found.left) == ("2", "1")
    assert registry.at(PRODUCTION).version == "2"


def test_there_is_nothing_to_go_back_to_before_the_second_promotion(store, registry, compare):
    with pytest.raises(ConflictError, match="nothing is in production"):
        rollback(store.workspace, WHO, "")
    compare(store.winner)
    promote(store.workspace, LAX, WHO, store.winner)
    with pytest.raises(ConflictError, match="no version before 1"):
        rollback(store.workspace, WHO, "")
    assert decisions(store) == ["promoted"]


def test_a_bundle_that_is_whole_nowhere_is_not_gone_back_to(store, registry, two_versions, monkeypatch):
    kept = store.storage.path(layout.bundle(read_ledger(store.storage).version("1").sha256))
    Path(kept, MODEL).write_bytes(b"cut")
    monkeypatch.setattr(Registry, "download", lambda *_: (_ for _ in ()).throw(TrackingError("gone")))
    assert [problem.split(":")[0] for problem in status(store.workspace).problems] == ["version 1 cannot be served"]
    with pytest.raises(TrackingError, match="gone"):
        rollback(store.workspace, WHO, "looks wrong")
    assert decisions(store) == ["promoted", "promoted"]


def test_a_bundle_that_was_deleted_in_the_store_is_kept_again_by_the_same_promotion(store, registry, two_versions):
    shutil.rmtree(store.storage.path("bundles"))
    problems = status(store.workspace).problems
    assert [problem.split(";")[0] for problem in problems] == [
        f"the bundle of version {number} is not whole in {store.storage.root}, only in MLflow" for number in ("2", "1")
    ]
    assert promote(store.workspace, LAX, WHO, store.winner).skipped
    assert len(status(store.workspace).problems) == 1


def test_a_version_deleted_in_mlflow_stops_no_decision(store, registry, two_versions):
    client = MlflowClient(store.settings.resolved_tracking_uri)
    client.delete_model_version(registry.model_name, "2")
    (problem,) = status(store.workspace).problems
    assert "MLflow no longer has version 2" in problem
    found = rollback(store.workspace, WHO, "its version was deleted")
    assert (found.version.version, registry.at(PRODUCTION).version) == ("1", "1")
    assert status(store.workspace).problems == ()


def test_an_older_ledger_that_takes_over_does_not_bring_back_what_left_since(store, registry, two_versions):
    older = store.storage.read(layout.LEDGER)
    rollback(store.workspace, WHO, "looks wrong")
    store.storage.write(layout.LEDGER, older)
    asked = read_ledger(store.storage).questions()
    assert adopt(store.workspace, WHO, "restored", store.storage).version.version == "1"
    assert read_ledger(store.storage).questions() == asked
    assert "is not to be had as it was" in " ".join(read_ledger(store.storage).entries[-1].reasons)


def test_a_damaged_bundle_is_made_whole_from_mlflow_before_it_is_gone_back_to(store, registry, two_versions):
    kept = Path(store.storage.path(layout.bundle(read_ledger(store.storage).version("1").sha256)))
    (kept / MODEL).write_bytes(b"cut")
    assert rollback(store.workspace, WHO, "looks wrong").version.version == "1"
    assert load_bundle(kept).manifest.run_id == store.other


def test_a_look_at_a_store_without_decisions_leaves_anothers_aliases_alone(store, registry, two_versions, tmp_path):
    empty = Folder(str(tmp_path / "empty"))
    before = (registry.at(PRODUCTION), registry.at(PREVIOUS), registry.holders())
    found = status(workspace_of(empty, registry))
    assert found.production is None
    assert any(store.storage.root in problem and "adopt" in problem for problem in found.problems)
    for decide in (
        lambda: promote(workspace_of(empty, registry), LAX, WHO, store.winner),
        lambda: evaluate(workspace_of(empty, registry), Params(), WHO, store.winner),
        lambda: rollback(workspace_of(empty, registry), WHO, ""),
    ):
        with pytest.raises(ConflictError, match=r"(?s)is held by the ledger in .*health-predict adopt"):
            decide()
    assert before == (registry.at(PRODUCTION), registry.at(PREVIOUS), registry.holders())
    assert not empty.list()


def test_a_store_that_adopts_a_model_goes_on_and_the_other_is_told(store, registry, two_versions, tmp_path):
    heir = Folder(str(tmp_path / "heir"))
    with pytest.raises(StorageError, match=r"say with --from which storage root has it"):
        adopt(workspace_of(heir, registry), WHO, "moved")
    assert read_ledger(heir).entries == []
    found = adopt(workspace_of(heir, registry), WHO, "moved", store.storage)
    assert (found.version.version, found.from_ledger) == ("2", False)
    assert read_ledger(heir).production == "2"
    assert load_bundle(Path(heir.path(layout.bundle(found.version.sha256)))).manifest.run_id == store.winner
    with pytest.raises(ConflictError, match="is held by the ledger in"):
        rollback(store.workspace, WHO, "")
    assert adopt(workspace_of(heir, registry), WHO, "moved").skipped
    assert [entry.decision for entry in read_ledger(heir).entries] == ["adopted"]
    assert adopt(store.workspace, WHO, "back").from_ledger
    assert not rollback(store.workspace, WHO, "").skipped


def test_what_was_rolled_back_in_the_other_store_stays_out_after_an_adoption(store, registry, two_versions, tmp_path):
    rollback(store.workspace, WHO, "looks wrong")
    out = read_ledger(store.storage).entries[-1]
    heir = Folder(str(tmp_path / "heir"))
    adopt(workspace_of(heir, registry), WHO, "moved", store.storage)
    ledger = read_ledger(heir)
    assert (ledger.production, ledger.kept_out) == ("1", [out])
    assert ledger.barred(out.subject) == out
    assert len(ledger.questions()) == len(read_ledger(store.storage).questions()) == 2


def test_a_copy_of_a_store_is_told_when_the_original_has_gone_on(store, registry, compare, tmp_path):
    compare(store.other)
    promote(store.workspace, LAX, WHO, store.other)
    shutil.copytree(store.root, tmp_path / "copy")
    compare(store.winner)
    promote(store.workspace, LAX, WHO, store.winner)
    with pytest.raises(ConflictError, match="a copy, or restored from a backup"):
        rollback(workspace_of(Folder(str(tmp_path / "copy")), registry), WHO, "")


def test_a_ledger_speaks_for_one_registered_model(store, registry, two_versions):
    with pytest.raises(ConflictError, match="speaks for the registered model HealthPredict, not for Another"):
        promote(workspace_of(store.storage, registry.for_model("Another")), LAX, WHO, store.winner)


def test_what_an_alias_serves_without_a_ledger_is_replaced_by_nothing_that_was_not_compared(store, compare):
    compare(store.winner)
    client = MlflowClient(store.settings.resolved_tracking_uri)
    client.create_registered_model(store.registry.model_name)
    client.create_model_version(store.registry.model_name, "elsewhere", run_id=store.other)
    client.set_registered_model_alias(store.registry.model_name, PRODUCTION, "1")
    for decide in (
        lambda: promote(store.workspace, LAX, WHO, store.winner),
        lambda: evaluate(store.workspace, Params(), WHO, store.winner),
    ):
        with pytest.raises(ConflictError, match=r"version 1 of HealthPredict at the alias production.*adopt"):
            decide()
    assert (store.registry.at(PRODUCTION).version, store.registry.holders()) == ("1", {})
    (problem,) = status(store.workspace).problems
    assert "health-predict adopt" in problem
    assert adopt(store.workspace, WHO, "it was there").version.run_id == store.other
    compare(store.winner)
    assert promote(store.workspace, LAX, WHO, store.winner).previous == "1"


def test_a_model_that_goes_to_and_fro_brings_each_question_once(store, registry, two_versions, tmp_path):
    heir = Folder(str(tmp_path / "heir"))
    asked = read_ledger(store.storage).questions()
    for _ in range(2):
        adopt(workspace_of(heir, registry), WHO, "moved", store.storage)
        adopt(store.workspace, WHO, "back", heir)
    assert read_ledger(heir).questions() == read_ledger(store.storage).questions() == asked


@pytest.mark.parametrize("held", [False, True])
def test_another_mlflow_with_versions_of_the_same_numbers_is_left_alone(store, two_versions, tmp_path, held):
    other = Registry(f"sqlite:///{tmp_path / 'other.db'}", store.registry.model_name, str(tmp_path / "artifacts"))
    client = MlflowClient(f"sqlite:///{tmp_path / 'other.db'}")
    tags = {f"{HOLDER}1": msgspec.json.encode(Holder(1, "ab12", "elsewhere", 0, "")).decode()} if held else {}
    client.create_registered_model(other.model_name, tags)
    for _ in range(2):
        client.create_model_version(other.model_name, "elsewhere", run_id=client.create_run("0").info.run_id)
    client.set_registered_model_alias(other.model_name, PRODUCTION, "1")
    before, entries = (other.at(PRODUCTION), other.holders()), read_ledger(store.storage).entries
    for decide in (
        lambda: promote(workspace_of(store.storage, other), LAX, WHO, store.winner),
        lambda: rollback(workspace_of(store.storage, other), WHO, ""),
        lambda: adopt(workspace_of(store.storage, other), WHO, "moved"),
    ):
        with pytest.raises(ConflictError, match="MLflow"):
            decide()
    (problem,) = status(workspace_of(store.storage, other)).problems
    assert "completes it" not in problem
    assert (other.at(PRODUCTION), other.holders()) == before
    assert read_ledger(store.storage).entries == entries


def test_every_question_to_a_hold_out_is_counted_and_an_equal_one_is_the_same(store, registry):
    looks = [
        evaluate(store.workspace, Params(), WHO, run_id).comparison.look
        for run_id in (store.winner, store.other, store.winner)
    ]
    assert looks == [1, 2, 1]
    store.storage.delete(layout.evaluation_report(store.winner))
    assert evaluate(store.workspace, Params(), WHO, store.winner).comparison.look == 1
    assert len(read_ledger(store.storage).questions()) == 2


def test_an_evaluation_is_done_once_for_each_champion(store, registry, compare):
    first = evaluate(store.workspace, Params(), WHO, store.other)
    assert not first.skipped
    assert first.champion is None
    assert first.comparison.seen == 0
    assert evaluate(store.workspace, Params(), WHO, store.other) == replace(first, skipped=True)
    compare(store.winner)
    promote(store.workspace, LAX, WHO, store.winner)
    against = evaluate(store.workspace, Params(), WHO, store.other)
    assert not against.skipped
    assert against.champion == against.comparison.champion.version == "1"


def test_the_evaluation_that_a_run_was_promoted_on_is_kept(store, registry, compare):
    for run_id in (store.other, store.winner):
        compare(run_id)
        promote(store.workspace, LAX, WHO, run_id)
    approved = {run_id: store.storage.read(layout.evaluation_report(run_id)) for run_id in (store.other, store.winner)}
    other_rules = Params(gate=LAX)
    assert evaluate(store.workspace, other_rules, WHO, store.winner).skipped
    promote(store.workspace, LAX, WHO, store.winner)
    rollback(store.workspace, WHO, "looks wrong")
    assert evaluate(store.workspace, other_rules, WHO, store.winner).skipped  # may be promoted on it again
    promote(store.workspace, LAX, WHO, store.winner, "it was right")
    with pytest.raises(Declined, match="was promoted before, against version None"):
        evaluate(store.workspace, other_rules, WHO, store.other)
    assert approved == {run_id: store.storage.read(layout.evaluation_report(run_id)) for run_id in approved}


def test_an_evaluation_that_was_stopped_before_mlflow_had_it_is_made_again(store, registry, monkeypatch):
    with monkeypatch.context() as stopped:
        stopped.setattr(Registry, "log_folder", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            evaluate(store.workspace, Params(), WHO, store.winner)
    assert not evaluate(store.workspace, Params(), WHO, store.winner).skipped
    assert registry.holds(store.winner, Path(EVALUATION).stem)


def test_a_model_against_itself_differs_by_exactly_nothing(store, registry, compare):
    compare(store.winner)
    promote(store.workspace, LAX, WHO, store.winner)
    store.storage.delete(layout.evaluation_report(store.winner))
    differences = evaluate(store.workspace, Params(), WHO, store.winner).comparison.champion.differences
    assert (differences.auroc.estimate, differences.auroc.lower, differences.auroc.upper) == (0, 0, 0)


def capacities(store, registry, *runs: str) -> list[float]:
    return [registry.bundle(run_id).manifest.capacity for run_id in runs]


def test_a_capacity_goes_from_version_to_version_until_another_is_asked_for(store, registry, compare):
    def train(*options: str) -> str:
        code, out, err = store.run("train", "--families", "lightgbm", "--trials", "1", *options, "--json")
        assert code == 0, err
        return json.loads(out.splitlines()[-1])["winner"]

    first = train()
    compare(first)
    promote(store.workspace, LAX, WHO, first)
    assert train() == first
    wider = train("--capacity", "0.3")
    assert capacities(store, registry, first, wider) == [0.2, 0.3]
    compare(wider)
    assert promote(store.workspace, LAX, WHO, wider).version.version == "2"  # which scores alike and flags more
    assert train() == wider
    assert capacities(store, registry, train("--seed", "5")) == [0.3]


def test_a_capacity_that_is_no_share_of_discharges_is_refused(store, health_predict):
    found = health_predict(store.root, "train", "--capacity", "20")
    assert found.code == 2
    assert "--capacity': Input should be less than or equal to 0.99" in found.err
