"""`health-predict evaluate`: compares challenger and champion on encounters that neither was trained on."""

from dataclasses import dataclass, replace

import polars as pl

from health_predict.adapters.training_runs import log_evaluation
from health_predict.bundle.model import Bundle, require_run, require_target
from health_predict.data.cohort import LabelledEncounters
from health_predict.errors import Declined
from health_predict.evaluation.gate import Scores, checks, compare_models, stance
from health_predict.params import GateParams, Params
from health_predict.store.bundles import open_version
from health_predict.store.datasets import Dataset, Vouched, named, read_part, vouch
from health_predict.store.holdouts import asked_before, seen
from health_predict.store.ledger import Ledger, Question, append
from health_predict.store.reports import EvaluationReport, read_evaluation, read_training, write_evaluation
from health_predict.store.simulations import require_world, simulation_of
from health_predict.store.storage import Storage
from health_predict.store.tables import keep_table
from health_predict.workspace import Workspace
from health_predict.workspace.production import checked, drafted, subject_of


@dataclass(frozen=True)
class _Models:
    """The models that are compared, and the versions with their numbers."""

    challenger: Bundle
    champion: tuple[str, Bundle] | None
    first: tuple[str, Bundle] | None

    @property
    def bundles(self) -> list[Bundle]:
        return [self.challenger, *(version[1] for version in (self.champion, self.first) if version)]


def evaluate(
    workspace: Workspace,
    params: Params,
    who: str,
    run_id: str | None,
    dataset: Dataset | None = None,
) -> EvaluationReport:
    """Compare a run's model with production on the encounters of a data set's test part that neither has seen.

    `run_id` None: the newest training's winner; `dataset` None: the one that the run's bundle names. The ledger counts
    the look before it is taken. Skipped when the same models were compared on the same data by the same rules. The
    evaluation that a run was promoted on is never replaced, as monitoring compares with it. Raises StorageError before
    `train`, BundleError when a bundle is incomplete or for another target, DataError when a model's training data are
    unknown, Declined when too few unseen encounters are left, and for a run that was promoted against another version
    than the one in production now.
    """
    workspace = workspace.reading_once()
    storage = workspace.storage
    run_id = run_id or read_training(storage).winner
    ledger = checked(workspace)
    report = read_evaluation(storage, run_id)
    if report and _was_promoted(ledger, run_id):
        return _approved(ledger, report)
    models = _models(workspace, ledger, run_id)
    dataset = dataset or named(models.challenger.manifest.dataset)
    vouched = vouch(storage, dataset)
    made_from = {"test": vouched.files[dataset.test], "rules": repr((params.gate, params.bootstrap))}
    if (
        report
        and report.comparison.fingerprints == made_from
        and report.champion == ledger.production
        and ledger.asked(subject_of(models.challenger), report.holdout, report.champion)
    ):
        return replace(report, skipped=True)
    data, left_out = _unseen(storage, vouched, models, params.gate)
    question = _asked(workspace, ledger, models, vouched, who)
    comparison = compare_models(
        data.encounters,
        data.outcomes,
        _scores(run_id, models.challenger, data),
        champion=models.champion and _scores(*models.champion, data),
        first=models.first and _scores(*models.first, data),
        trained_on=seen(storage, [bundle.manifest for bundle in models.bundles]),
        fingerprints=made_from,
        capacity=models.challenger.manifest.capacity,
        gate=params.gate,
        bootstrap=params.bootstrap,
        represents=data.represents,
    )
    comparison = replace(comparison, look=question.look)
    report = EvaluationReport(
        run_id=run_id,
        family=models.challenger.manifest.family,
        champion=ledger.production,
        synthetic=models.challenger.manifest.synthetic,
        simulation=simulation_of(storage),
        holdout=question.holdout,
        left_out=left_out,
        comparison=comparison,
        checks=tuple(checks(comparison, params.gate)),
        operating_point=comparison.challenger.operating_point,
        stance=stance(comparison, params.gate),
    )
    log_evaluation(workspace.registry, report)  # logged first: a report in the store is not made again
    write_evaluation(storage, report)
    return report


def _was_promoted(ledger: Ledger, run_id: str) -> bool:
    return any(entry.subject.run_id == run_id and entry.decision in ("promoted", "adopted") for entry in ledger.entries)


def _approved(ledger: Ledger, report: EvaluationReport) -> EvaluationReport:
    """The evaluation that a run was promoted on, if it still explains why the run is in or out of production."""
    arrived = next(e for e in reversed(ledger.entries) if e.subject.run_id == report.run_id and e.subject.version)
    serving = ledger.subject(ledger.production).run_id if ledger.production else None
    barred = ledger.barred(arrived.subject) is not None
    if report.run_id != serving and report.champion != ledger.production and not barred:
        raise Declined(
            f"the run {report.run_id} is not evaluated again:",
            [
                f"It was promoted before, against version {report.champion}, and that evaluation is kept; production "
                f"is {ledger.production} now. `health-predict rollback --to VERSION` goes back to a version; or train "
                "anew."
            ],
        )
    return replace(report, skipped=True)


def _models(workspace: Workspace, ledger: Ledger, run_id: str) -> _Models:
    challenger = workspace.registry.bundle(run_id)
    require_run(challenger.manifest, run_id)
    require_target(challenger.manifest)
    require_world(challenger.manifest, simulation_of(workspace.storage))

    def opened(number: str | None) -> tuple[str, Bundle] | None:
        if number is None:
            return None
        bundle = open_version(workspace.storage, workspace.connect, ledger.version(number))
        require_target(bundle.manifest)
        return number, bundle

    return _Models(challenger, opened(ledger.production), opened(ledger.first.production if ledger.first else None))


def _unseen(
    storage: Storage, vouched: Vouched, models: _Models, gate: GateParams
) -> tuple[LabelledEncounters, dict[str, int]]:
    """The hold-out without encounters that a model has seen, and the number of these by version."""
    data, _ = read_part(storage, vouched, vouched.dataset.test, models.challenger.manifest.target)
    ids = data.encounters["encounter_id"]
    versions = [(f"version {number}", bundle) for number, bundle in filter(None, (models.champion, models.first))]
    left_out = {}
    for name, bundle in [("the challenger", models.challenger), *versions]:
        if count := int(ids.is_in(seen(storage, [bundle.manifest]).implode()).sum()):
            left_out[name] = count
    unseen = ~ids.is_in(seen(storage, [bundle.manifest for bundle in models.bundles]).implode())
    kept = data.of(unseen.to_numpy())
    counted = kept.judgeable
    if left_out and (len(counted.outcomes) < gate.min_rows or counted.outcomes.sum() < gate.min_outcomes):
        raise Declined("there is nothing to compare on fairly:", _too_few(len(ids), counted, left_out, gate))
    return kept, left_out


def _too_few(rows: int, kept: LabelledEncounters, left_out: dict[str, int], gate: GateParams) -> list[str]:
    told = ", ".join(f"{count} by {name}" for name, count in left_out.items())
    return [
        f"Of the {rows} encounters of the hold-out, models have seen in training: {told}. {len(kept.outcomes)} with "
        f"{kept.outcomes.sum()} readmissions are left; {gate.min_rows} and {gate.min_outcomes} are needed. Train anew "
        "when more outcomes have matured; the hold-out of a training is chosen from what production has not seen."
    ]


def _asked(workspace: Workspace, ledger: Ledger, models: _Models, vouched: Vouched, who: str) -> Question:
    """The look as the ledger counts it: an equal model against the same version is no further look."""
    storage = workspace.storage
    subject, holdout = subject_of(models.challenger), vouched.files[vouched.dataset.test]
    table = storage.read(vouched.dataset.test)
    keep_table(storage, table)
    before = ledger.asked(subject, holdout, ledger.production)
    if before:
        return before
    ids = pl.read_parquet(table, columns=["encounter_id"])["encounter_id"]
    look = 1 + asked_before(storage, ledger.questions(), ids)
    question = Question(holdout, ledger.production, look)
    append(storage, ledger, drafted(workspace, ledger, "evaluated", subject, who, question=question))
    return question


def _scores(version: str, bundle: Bundle, data: LabelledEncounters) -> Scores:
    manifest = bundle.manifest
    y_proba = bundle.predict_proba(data.encounters)
    return Scores(version, y_proba, manifest.threshold, manifest.target, manifest.capacity)
