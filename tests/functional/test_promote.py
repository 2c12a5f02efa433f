"""Decisions: what the gate says goes, one at a time, and the ledger and the aliases end up saying the same."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest

from health_predict.errors import ConflictError, Declined, StorageError
from health_predict.io import layout
from health_predict.io.ledger import append, entry, read_ledger
from health_predict.io.registry import EVALUATION, PREVIOUS, PRODUCTION, Registry, Version
from health_predict.params import GateParams, Params
from health_predict.steps.evaluate import evaluate
from health_predict.steps.promote import promote
from health_predict.steps.rollback import rollback
from health_predict.steps.status import status

# Anything that was compared on unseen encounters passes, so that what follows a yes can be tested.
LAX = GateParams(
    max_auroc_loss=2,
    max_average_precision_loss=2,
    max_auroc_loss_from_first=2,
    observed_expected=(0, 1e9),
    max_subgroup_auroc_loss=2,
    min_subgroup_auroc=0,
)
STRICT = replace(LAX, min_rows=10**9)


@pytest.fixture
def registry(store) -> Registry:
    return store.registry


@pytest.fixture
def compare(store, registry) -> Callable[[str], None]:
    """Evaluate a run against what is in production now."""
    return lambda run_id: evaluate(store.storage, registry, Params(), run_id) and None


def decisions(store) -> list[str]:
    return [found.decision for found in read_ledger(store.storage).entries]


def test_a_promotion_is_written_and_served_and_done_once(store, registry, compare):
    compare(store.winner)
    promoted = promote(store.storage, registry, LAX, None)
    assert (promoted.version.run_id, promoted.previous, promoted.skipped) == (store.winner, None, False)
    assert registry.at(PRODUCTION) == promoted.version
    (written,) = read_ledger(store.storage).entries
    assert (written.decision, written.production, written.run_id) == ("promoted", "1", store.winner)
    assert written.reasons
    assert {"auroc", "rows", "outcomes"} <= set(written.numbers)

    again = promote(store.storage, registry, LAX, store.winner)
    assert again.skipped
    assert again.version == promoted.version
    assert decisions(store) == ["promoted"]


def test_a_decline_leaves_the_champion_and_is_written_with_its_reasons(store, registry, compare):
    compare(store.winner)
    promote(store.storage, registry, LAX, store.winner)
    compare(store.other)
    with pytest.raises(Declined, match="at least 1000000000 needed") as declined:
        promote(store.storage, registry, STRICT, store.other)
    assert declined.value.exit_code == 99
    written = read_ledger(store.storage).entries[-1]
    assert (written.decision, written.run_id, written.production) == ("declined", store.other, "1")
    assert written.reasons == declined.value.reasons
    assert registry.at(PRODUCTION).run_id == store.winner
    assert registry.at(PREVIOUS) is None


def test_a_run_that_was_not_evaluated_is_told_what_to_do(store, registry):
    with pytest.raises(StorageError, match="run `health-predict evaluate` first"):
        promote(store.storage, registry, LAX, store.winner)


def test_a_comparison_with_another_champion_decides_nothing(store, registry, compare):
    compare(store.winner)
    compare(store.other)
    promote(store.storage, registry, LAX, store.winner)
    with pytest.raises(ConflictError, match="compared with version None, and production is 1"):
        promote(store.storage, registry, LAX, store.other)
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
            return promote(store.storage, registry, LAX, run_id).version.run_id
        except ConflictError:
            return "told"

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(decide, (store.winner, store.other)))
    assert found.count("told") == 1
    (written,) = read_ledger(store.storage).entries
    assert written.run_id in found
    assert store.registry.at(PRODUCTION).run_id == written.run_id


@pytest.mark.parametrize("command", ["promote", "status"])
def test_a_promotion_that_died_before_the_alias_moved_is_completed_by_the_next_command(
    store, registry, compare, command
):
    compare(store.winner)
    version = registry.register(store.winner, {})
    ledger = read_ledger(store.storage)
    append(store.storage, ledger, entry(ledger, "promoted", store.winner, [], {}, version.version))
    assert registry.at(PRODUCTION) is None
    if command == "promote":
        assert promote(store.storage, registry, LAX, store.winner).skipped
    else:
        assert status(store.storage, registry).production == version
    assert registry.at(PRODUCTION) == version
    assert decisions(store) == ["promoted"]


def test_rollback_swaps_and_a_second_one_undoes_the_first(store, registry, compare):
    for run_id in (store.other, store.winner):
        compare(run_id)
        promote(store.storage, registry, LAX, run_id)
    assert rollback(store.storage, registry, "looks wrong").run_id == store.other
    assert (registry.at(PRODUCTION).version, registry.at(PREVIOUS).version) == ("1", "2")
    assert rollback(store.storage, registry, "it was right").run_id == store.winner
    assert (registry.at(PRODUCTION).version, registry.at(PREVIOUS).version) == ("2", "1")
    entries = read_ledger(store.storage).entries
    assert [e.decision for e in entries] == ["promoted", "promoted", "rolled_back", "rolled_back"]
    assert [e.reasons for e in entries[2:]] == [["looks wrong"], ["it was right"]]


def test_there_is_nothing_to_go_back_to_before_the_second_promotion(store, registry, compare):
    with pytest.raises(ConflictError, match="no version before the first promotion"):
        rollback(store.storage, registry, "")
    compare(store.winner)
    promote(store.storage, registry, LAX, store.winner)
    with pytest.raises(ConflictError, match="no version before 1"):
        rollback(store.storage, registry, "")
    assert decisions(store) == ["promoted"]


def test_an_evaluation_is_done_once_for_each_champion(store, registry, compare):
    first = evaluate(store.storage, registry, Params(), store.other)
    assert not first.skipped
    assert first.champion is None
    assert first.comparison.seen == 0
    assert evaluate(store.storage, registry, Params(), store.other) == replace(first, skipped=True)
    compare(store.winner)
    promote(store.storage, registry, LAX, store.winner)
    against = evaluate(store.storage, registry, Params(), store.other)
    assert not against.skipped
    assert against.champion == against.comparison.champion.version == "1"


def test_the_evaluation_that_a_run_was_promoted_on_is_kept(store, registry, compare):
    for run_id in (store.other, store.winner):
        compare(run_id)
        promote(store.storage, registry, LAX, run_id)
    approved = {run_id: store.storage.read(layout.evaluation_report(run_id)) for run_id in (store.other, store.winner)}
    other_rules = Params(gate=LAX)
    assert evaluate(store.storage, registry, other_rules, store.winner).skipped
    promote(store.storage, registry, LAX, store.winner)
    rollback(store.storage, registry, "looks wrong")
    assert evaluate(store.storage, registry, other_rules, store.winner).skipped  # may be promoted on it again
    rollback(store.storage, registry, "it was right")
    with pytest.raises(ConflictError, match="was promoted before, against version None"):
        evaluate(store.storage, registry, other_rules, store.other)
    assert approved == {run_id: store.storage.read(layout.evaluation_report(run_id)) for run_id in approved}


def test_an_evaluation_that_was_stopped_before_mlflow_had_it_is_made_again(store, registry, monkeypatch):
    with monkeypatch.context() as stopped:
        stopped.setattr(Registry, "log_folder", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            evaluate(store.storage, registry, Params(), store.winner)
    assert not evaluate(store.storage, registry, Params(), store.winner).skipped
    version = registry.register(store.winner, {})
    assert (registry.fetch_bundle(version, store.root / "cache") / EVALUATION).exists()


def test_a_model_against_itself_differs_by_exactly_nothing(store, registry, compare):
    compare(store.winner)
    promote(store.storage, registry, LAX, store.winner)
    store.storage.delete(layout.evaluation_report(store.winner))
    differences = evaluate(store.storage, registry, Params(), store.winner).comparison.champion.differences
    assert (differences.auroc.estimate, differences.auroc.lower, differences.auroc.upper) == (0, 0, 0)
