"""Answers requests and reports the service's own state, without HTTP, which is in `serving/http`."""

import asyncio
import hashlib
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec

from health_predict.data.schema import EXCLUDED_DISPOSITIONS, IDENTIFIERS
from health_predict.errors import HealthPredictError
from health_predict.serving.core import answers, heap
from health_predict.serving.core.contract import (
    NESTING,
    Encounter,
    InvalidEncounterError,
    Problem,
    other_encoding,
    read_encounter,
    split_batch,
)
from health_predict.serving.core.model import Model, load_model
from health_predict.serving.journal.audit import AuditLine, AuditLog
from health_predict.serving.journal.log import Log
from health_predict.serving.journal.metrics import ServingMetrics
from health_predict.store.prediction_log import PredictionLog, ScoredEncounter, pseudonym

NO_BUNDLE = "there is no bundle yet; the output of `health-predict serve` says what it waits for"
PAUSE_AFTER = 0.002  # seconds of work on a batch, after which other requests have their turn


class NotReadyError(Exception):
    """No verified model is loaded."""


class Call(msgspec.Struct, frozen=True):
    """One request: its number and its caller."""

    request_id: str
    caller: str


@dataclass(frozen=True)
class Journal:
    """The audit log and the prediction log; None for a log that is switched off."""

    audit: AuditLog | None = None
    predictions: PredictionLog | None = None
    pseudonym_key: bytes = b""


class Service:
    """Holds the model that answers, and replaces it on reload."""

    def __init__(
        self, folder: Path, metrics: ServingMetrics, log: Log, journal: Journal, batch_limit: int, encounter_limit: int
    ):
        """`batch_limit`: most encounters of a batch. `encounter_limit`: most bytes of each."""
        self.metrics, self.log, self.draining = metrics, log, False
        self._folder, self._journal = folder, journal
        self._batch_limit, self._encounter_limit = batch_limit, encounter_limit
        self._model: Model | None = None
        self._last_reload: answers.Reload | None = None
        self._loading = asyncio.Lock()
        self._scored_in_window, self._missing_before = 0, dict[str, int]()

    @property
    def model_version(self) -> str:
        return self._model.version if self._model else "-"

    @property
    def has_model(self) -> bool:
        return self._model is not None

    async def reload(self) -> None:
        """Load the bundle that is in the folder now. If it does not verify, the previous bundle goes on answering.

        Before the first bundle the folder may not exist yet; its creator then asks for another reload.
        """
        async with self._loading:
            if self._model is None and not self._folder.exists():
                return
            now = datetime.now(UTC).isoformat(timespec="seconds")
            try:
                model = await asyncio.to_thread(load_model, self._folder)
            except Exception as error:  # noqa: BLE001  # whatever it was, it is said and the model before stays
                reason = _reason(error).replace(str(self._folder.resolve()), "the bundle folder")
                self._last_reload = answers.Reload(ok=False, time=now, reason=reason)
                self.metrics.not_loaded()
                self.log.event("bundle_refused", reason=reason, model_version=self.model_version)
                return
            self._model = model
            heap.give_back()
            self._last_reload = answers.Reload(ok=True, time=now)
            self.metrics.loaded(model.name, model.version, model.bundle.sha256)
            self.log.event("bundle_taken_up", model_version=model.version, sha256=model.bundle.sha256)

    def drain(self, seconds: float) -> None:
        """Report not ready, and go on answering requests for `seconds`."""
        self.draining = True
        self.metrics.draining()
        self.log.event("draining", seconds=seconds)

    def health(self) -> answers.Health:
        model, reload = self._model, self._last_reload
        reason = reload.reason if reload and not reload.ok else None
        if model is None:
            loading = "the bundle is being loaded and verified" if self._folder.exists() else NO_BUNDLE
            status, said = ("failed", reason) if reason else ("loading", loading)
            return answers.Health(status=status, reason=said, last_reload=reload)
        return answers.Health(
            status="draining" if self.draining else "ok",
            reason="the service is being stopped" if self.draining else None,
            model_name=model.name,
            model_version=model.version,
            sha256=model.bundle.sha256,
            synthetic=model.bundle.manifest.synthetic,
            simulation=model.bundle.manifest.simulation,
            last_reload=reload,
        )

    def describe_model(self) -> dict[str, Any]:
        return self._ready().description

    async def predict(self, body: bytes, call: Call) -> answers.Prediction:
        """Score one encounter. Raises InvalidEncounterError, NotReadyError, StorageError (audit)."""
        model = self._ready()
        encounter = self._read(body)
        prediction = self._score(model, encounter, call)
        if self._journal.audit:
            await self._audit(model, body, call, "/predict", [prediction.probability_score])
        self._note(model, encounter, prediction, call)
        return prediction

    async def predict_batch(self, body: bytes, call: Call) -> answers.Batch:
        """Score a batch; an encounter that cannot be scored is answered with its problems. Raises as `predict`.

        Nothing is counted or logged before the last encounter is scored: a batch that times out was not answered.
        """
        model = self._ready()
        results: list[answers.Prediction | answers.Refusal] = []
        scored: list[tuple[Encounter, answers.Prediction]] = []
        began = perf_counter()
        for raw in self._read_batch(body):
            try:
                encounter = self._read_one(raw)
                prediction = self._score(model, encounter, call)
                results.append(prediction)
                scored.append((encounter, prediction))
            except InvalidEncounterError as error:
                results.append(answers.Refusal([answers.Problem(**p.to_json()) for p in error.problems]))
            if perf_counter() - began > PAUSE_AFTER:
                await asyncio.sleep(0)
                began = perf_counter()
        scores = [r.probability_score if isinstance(r, answers.Prediction) else None for r in results]
        await self._audit(model, body, call, "/predict/batch", scores)
        for encounter, prediction in scored:
            self._note(model, encounter, prediction, call)
        missing = Counter(name for _, prediction in scored for name in prediction.missing_fields)
        return answers.Batch(
            predictions=results,
            refused=len(results) - len(scored),
            unknown=Counter(name for _, prediction in scored for name in prediction.unknown_fields),
            missing=missing,
            warnings=[*model.warn_of_many(missing, len(scored)).values()],
            bundle_sha256=model.bundle.sha256,
            model_version=model.version,
            request_id=call.request_id,
        )

    async def explain(self, body: bytes, call: Call) -> answers.Explanation:
        """Contributions of clinical factors to one encounter's probability. Raises as `predict`."""
        model = self._ready()
        encounter = self._read(body)
        explained = model.explainer.explain(encounter)
        await self._audit(model, body, call, "/explain", [explained.probability])
        encoder = model.bundle.encoder
        return answers.Explanation(
            probability_score=explained.probability,
            reference_probability=explained.reference_probability,
            reference_changed=model.bundle.manifest.reference_encounter.changed,
            contributions=[
                answers.Contribution(
                    factor=c.factor.name,
                    contribution=c.amount,
                    fields=list(c.fields),
                    can_be_influenced=c.factor.can_be_influenced,
                )
                for c in explained.contributions
            ],
            missing_fields=encoder.missing_fields(encounter),
            unknown_fields=encoder.unknown_fields(encounter),
            bundle_sha256=model.bundle.sha256,
            outside_cohort=_outside_cohort(encounter),
            synthetic=model.bundle.manifest.synthetic,
            model_version=model.version,
            request_id=call.request_id,
        )

    def close(self, seconds: float) -> None:
        """Write the waiting lines of the prediction log, for at most `seconds`, and close the logs."""
        predictions = self._journal.predictions
        if predictions:
            predictions.close(timeout=seconds)
            self.log.event("prediction_log_closed", written=predictions.written, dropped=predictions.dropped)
        if self._journal.audit:
            self._journal.audit.close()

    def _ready(self) -> Model:
        if self._model is None:
            raise NotReadyError
        return self._model

    def _read(self, body: bytes) -> Encounter:
        try:
            return read_encounter(body)
        except InvalidEncounterError as error:
            for problem in error.problems:
                self.metrics.refused(problem.field, problem.kind)
            raise

    def _read_one(self, raw: msgspec.Raw) -> Encounter:
        body = bytes(raw)
        if len(body) > self._encounter_limit:
            raise self._refused(f"must be at most {self._encounter_limit} bytes long")
        return self._read(body)

    def _read_batch(self, body: bytes) -> list[msgspec.Raw]:
        try:
            raw = split_batch(body)
        except RecursionError:
            self.metrics.refused(None, NESTING.kind)
            raise InvalidEncounterError([NESTING]) from None
        except ValueError:
            rule = "must be a JSON array of encounters, or an object that holds it as `encounters`, once and alone"
            raise self._refused(rule, other_encoding(body)) from None
        if len(raw) > self._batch_limit:
            raise self._refused(f"must hold at most {self._batch_limit} encounters")
        return raw

    def _refused(self, rule: str, instead: Problem | None = None) -> InvalidEncounterError:
        problem = instead or Problem(None, rule, "batch")
        self.metrics.refused(None, problem.kind)
        return InvalidEncounterError([problem])

    def _score(self, model: Model, encounter: Encounter, call: Call) -> answers.Prediction:
        bundle = model.bundle
        probability, unknown = bundle.score(encounter)
        band = bundle.band(probability)
        missing = model.missing_fields(encounter)
        return answers.Prediction(
            prediction=int(probability >= bundle.manifest.threshold),
            probability_score=probability,
            threshold=bundle.manifest.threshold,
            risk_band=band,
            percentile=bundle.percentile(probability),
            unknown_fields=unknown,
            missing_fields=missing,
            warnings=model.warn_of_one(missing),
            outside_cohort=_outside_cohort(encounter),
            synthetic=bundle.manifest.synthetic,
            model_version=model.version,
            bundle_sha256=bundle.sha256,
            request_id=call.request_id,
        )

    def _note(self, model: Model, encounter: Encounter, prediction: answers.Prediction, call: Call) -> None:
        """Count a prediction, and put it into the prediction log if that is switched on."""
        unknown, missing = prediction.unknown_fields, prediction.missing_fields
        self.metrics.predicted(prediction.risk_band, unknown, missing, prediction.outside_cohort)
        self._scored_in_window += 1
        if self._scored_in_window >= model.missing_params.window:
            self._judge_missing(model)
        if self._journal.predictions:
            scored = self._scored(model, encounter, prediction.probability_score, call)
            self._journal.predictions.put(scored)

    def _judge_missing(self, model: Model) -> None:
        """Report fields missing far more often than in training, in the newest window, in metrics and log."""
        before, now = self._missing_before, self.metrics.missing
        missing = {name: count - before.get(name, 0) for name, count in now.items()}
        warnings = model.warn_of_many(missing, self._scored_in_window)
        self.metrics.far_more_missing({name: name in warnings for name in now})
        for warning in warnings.values():
            self.log.event("missing_far_more_often", reason=warning, model_version=model.version)
        self._scored_in_window, self._missing_before = 0, now

    def _scored(self, model: Model, encounter: Encounter, probability: float, call: Call) -> ScoredEncounter:
        patient, number, key = encounter.get("patient_nbr"), encounter.get("encounter_id"), self._journal.pseudonym_key
        return ScoredEncounter(
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            request_id=call.request_id,
            model_version=model.version,
            bundle_sha256=model.bundle.sha256,
            probability=probability,
            patient=None if patient is None else pseudonym(patient, key),
            encounter_pseudonym=None if number is None else pseudonym(number, key),
            encounter={name: value for name, value in encounter.items() if name not in IDENTIFIERS},
        )

    async def _audit(self, model: Model, body: bytes, call: Call, route: str, scores: list[float | None]) -> None:
        """Write an audit entry, and return when it is on the disk: nothing is answered before."""
        audit = self._journal.audit
        if audit is None:
            return
        audit.append(
            AuditLine(
                time=datetime.now(UTC).isoformat(timespec="milliseconds"),
                request_id=call.request_id,
                caller=call.caller,
                route=route,
                model_version=model.version,
                bundle_sha256=model.bundle.sha256,
                input_sha256=hashlib.sha256(body).hexdigest(),
                scores=scores,
            )
        )
        await audit.flush()


def _reason(error: Exception) -> str:
    """Message of one of our own errors; only the type of any other, as its message may hold a patient's value."""
    return str(error) if isinstance(error, HealthPredictError) else f"loading failed with {type(error).__name__}"


def _outside_cohort(encounter: Encounter) -> bool:
    return encounter.get("discharge_disposition_id") in EXCLUDED_DISPOSITIONS
