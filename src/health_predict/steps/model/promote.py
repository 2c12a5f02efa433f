"""`health-predict promote`: puts a run's model into production if the gate allows; the ledger has every decision."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from health_predict.adapters.registry import BUNDLE
from health_predict.bundle.model import Bundle, Manifest, require_run, require_target
from health_predict.errors import ConflictError, Declined, StorageError
from health_predict.evaluation.gate import Comparison, objections
from health_predict.params import GateParams
from health_predict.store.bundles import describe_kept, keep_bundle, keep_version, kept_manifest
from health_predict.store.ledger import Entry, Ledger, Question, Subject, Version
from health_predict.store.reports import EvaluationReport, read_evaluation, read_training
from health_predict.store.simulations import require_world, simulation_of
from health_predict.store.storage import Storage
from health_predict.workspace import Workspace
from health_predict.workspace.production import decide, drafted, hold, settle, subject_of


@dataclass(frozen=True)
class Promotion:
    """The version in production now; `skipped`: it, or a model with the same scores, was in production before."""

    version: Version
    previous: str | None
    simulation: str | None
    skipped: bool = False


def promote(
    workspace: Workspace,
    params: GateParams,
    who: str,
    run_id: str | None,
    allow_rolled_back: str | None = None,
) -> Promotion:
    """Put a run's model into production if the gate has no objection; `run_id` None: the newest training's winner.

    A version that was rolled back is declined, with its recalibrations and models with the same scores, unless
    `allow_rolled_back` gives a reason for its return. The ledger is written first and the aliases follow it: a
    promotion interrupted in between is completed by the next command that decides. Raises Declined with the objections;
    ConflictError when production, or the run's model, changed since the evaluation, or production during the decision;
    BundleError when the run lacks a part or its model is for study or from a replay; StorageError before `evaluate`.
    """
    ledger, once = settle(workspace), workspace.reading_once()
    storage, simulation = once.storage, simulation_of(once.storage)
    run_id = run_id or read_training(storage).winner
    if ledger.production and ledger.version(ledger.production).run_id == run_id:
        keep_version(storage, workspace.connect, ledger.version(ledger.production))
        describe_kept(storage, ledger.version(ledger.production))
        return Promotion(ledger.version(ledger.production), ledger.previous, simulation, skipped=True)
    report = read_evaluation(storage, run_id)
    if report is None:
        raise StorageError(f"the run {run_id} has no evaluation in {storage.root}; run `health-predict evaluate` first")
    bundle = workspace.registry.complete_bundle(run_id)
    require_target(bundle.manifest)
    require_run(bundle.manifest, run_id)
    require_world(bundle.manifest, simulation)
    if ledger.production and _is_the_same(storage, ledger.subject(ledger.production), bundle.manifest):
        return Promotion(ledger.version(ledger.production), ledger.previous, simulation, skipped=True)
    subject, question = subject_of(bundle), Question(report.holdout, report.champion, report.comparison.look)
    barred = _barred(ledger, subject, allow_rolled_back)
    if not barred and report.champion != ledger.production:
        raise ConflictError(
            f"the run {run_id} was compared with version {report.champion}, and production is {ledger.production}; "
            "run `health-predict evaluate` again"
        )
    if not barred and ledger.asked(subject, report.holdout, report.champion) is None:
        raise ConflictError(
            f"what the run {run_id} holds is not the model that was evaluated, says the ledger; run "
            "`health-predict evaluate` again"
        )
    reasons = barred or objections(report.comparison, params)
    told = {"numbers": _numbers(report.comparison), "question": question}
    if reasons:
        declined = drafted(once, ledger, "declined", subject, who, reasons=reasons, **told)
        if not _said(ledger, declined):
            decide(workspace, ledger, declined)
        who_declines = "the ledger keeps out" if barred else "the gate declines"
        raise Declined(f"{who_declines} the {report.family} of run {run_id}:", reasons)
    hold(workspace, ledger)
    version = _registered(once, ledger, report, bundle)
    ledger = decide(
        workspace,
        ledger,
        drafted(
            once,
            ledger,
            "promoted",
            subject_of(bundle, version.version),
            who,
            reasons=[check.sentence for check in report.checks],
            moves=(version.version, ledger.production),
            allowed=allow_rolled_back,
            **told,
        ),
    )
    describe_kept(storage, version)
    return Promotion(version, ledger.previous, simulation)


def _is_the_same(storage: Storage, production: Subject, found: Manifest) -> bool:
    """Whether a model gives the risks of the version in production, and flags for the same capacity."""
    return production.content == found.content and kept_manifest(storage, production.bundle).capacity == found.capacity


def _barred(ledger: Ledger, subject: Subject, allowed: str | None) -> list[str]:
    rolled_back = ledger.barred(subject)
    if rolled_back is None or allowed:
        return []
    told = rolled_back.subject
    same = "It" if told.run_id == subject.run_id else f"Its model is that of run {told.run_id}, which"
    return [
        f"{same} was rolled back as version {told.version} on {rolled_back.at} by {rolled_back.who} "
        f"({'; '.join(rolled_back.reasons)}). Only a person lets it return, with --allow-rolled-back REASON."
    ]


def _said(ledger: Ledger, declined: Entry) -> bool:
    """Whether the ledger's last entry is this refusal, so that a retry adds nothing."""
    if not ledger.entries:
        return False
    last = ledger.entries[-1]
    return (last.decision, last.subject, last.reasons, last.question) == (
        "declined",
        declined.subject,
        declined.reasons,
        declined.question,
    )


def _registered(workspace: Workspace, ledger: Ledger, report: EvaluationReport, bundle: Bundle) -> Version:
    """Keep the bundle and register the version, before the ledger is written: both may fail."""
    with tempfile.TemporaryDirectory() as folder:
        keep_bundle(workspace.storage, workspace.registry.download(bundle.manifest.run_id, BUNDLE, Path(folder)))
    tags = {"family": report.family, "synthetic": str(report.synthetic).lower(), "target": bundle.manifest.target}
    version = workspace.registry.register(bundle.manifest.run_id, tags)
    if version.version in ledger.numbers and ledger.version(version.version).run_id != version.run_id:
        raise ConflictError(
            f"MLflow gave the number {version.version} of {version.name} a second time, so it is not the MLflow that "
            "the ledger was written with; bring that one back, or begin with another MODEL_NAME in a new storage root"
        )
    return version


def _numbers(comparison: Comparison) -> dict[str, float]:
    found = {
        "rows": float(comparison.rows),
        "outcomes": float(comparison.outcomes),
        "auroc": comparison.challenger.auroc.estimate,
        "average_precision": comparison.challenger.average_precision.estimate,
        "observed_expected": comparison.challenger.observed_expected.estimate,
        "flag_rate": comparison.challenger.flag_rate.estimate,
        "recall": comparison.challenger.recall.estimate,
        "precision": comparison.challenger.precision.estimate,
    }
    if comparison.eligible and comparison.eligible.challenger:
        found["eligible_auroc"] = comparison.eligible.challenger.auroc.estimate
        found["eligible_average_precision"] = comparison.eligible.challenger.average_precision.estimate
    if comparison.champion:
        found["auroc_difference"] = comparison.champion.differences.auroc.estimate
        found["average_precision_difference"] = comparison.champion.differences.average_precision.estimate
    return found
