"""`health-predict demo`: every step from the raw dataset to predictions over HTTP, with a short report."""

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.table import Table

from health_predict.bundle.model import Bundle, load_bundle
from health_predict.cli import simulate, tables
from health_predict.cli.console import Output
from health_predict.cli.opening import workspace_of
from health_predict.cli.service import service
from health_predict.data.schema import CLINICAL
from health_predict.errors import Declined, ServiceError
from health_predict.evaluation.gate import objections
from health_predict.params import Params, SearchParams
from health_predict.settings import Settings
from health_predict.steps.data.fetch import fetch
from health_predict.steps.data.split import split
from health_predict.steps.data.validate import validate
from health_predict.steps.model.evaluate import evaluate
from health_predict.steps.model.fetch_bundle import fetch_bundle
from health_predict.steps.model.promote import promote
from health_predict.steps.model.train import train
from health_predict.store import layout
from health_predict.store.ledger import read_ledger
from health_predict.store.reports import EvaluationReport, read_evaluation
from health_predict.store.simulations import world
from health_predict.store.storage import Storage
from health_predict.store.tables import read_table
from health_predict.training.candidates import CANDIDATES
from health_predict.workspace import Workspace

SYNTHETIC_ENCOUNTERS = 60_000  # fewer leave the gate's intervals too wide for a clear verdict
ASKED = 1_000  # held-out encounters posted to the API
SHOWN = 3
LOOP_TRIALS = 1  # of each retraining: the family's good default
AGREEMENT = 1e-9  # JSON carries a double whole


def run(settings: Settings, synthetic: bool, trials: int) -> None:
    """Run every step that is not complete, then report. Raises the errors of the steps."""
    output, began = Output(), time.monotonic()
    workspace = workspace_of(settings)
    storage = workspace.storage
    params = Params(search=SearchParams(families=tuple(CANDIDATES), trials=trials))

    _heading(output, "1/7 data: fetch, validate, split")
    rows = SYNTHETIC_ENCOUNTERS if synthetic else None
    with output.progress("download") as advance:
        source = None if synthetic else settings.raw_data
        fetched = fetch(storage, source, settings.dataset_url, rows, lambda got, all_: advance(got, all_, "bytes"))
    output.say(tables.fetched(fetched))
    output.say(tables.validated(validate(storage, params.validation)))
    output.say(tables.split(split(storage, params.split)))

    _heading(output, f"2/7 train: five families, {trials} trials each")
    with output.training(params.search) as progress:
        training = train(workspace, params, "lt30", settings.ray_address, progress)

    _heading(output, "3/7 evaluate: on encounters that no model has seen")
    approved = _approved(storage, training.winner)  # by an earlier run; what came after it is the loop's
    evaluation = approved or evaluate(workspace, params, settings.actor, training.winner)

    _heading(output, "4/7 gate and promotion")
    decision = (
        "it went into production in an earlier run"
        if approved
        else _decide(workspace, params, settings, training.winner)
    )

    _heading(output, "5/7 serve, and ask the API")
    folder = fetch_bundle(workspace, settings.model_name, None, settings.model_alias)
    encounters = read_table(storage, layout.INITIAL_TEST).head(ASKED)
    with service(folder) as running:
        answers = _ask(running.address, encounters)
    difference = _compare(answers, load_bundle(folder), encounters)

    _heading(output, "6/7 the loop: the future arrives in batches; monitor, retrain, gate, promote")
    loop = Params(search=SearchParams(families=("lightgbm",), trials=LOOP_TRIALS))
    replay = simulate.run(settings, loop, simulate.Options(name=simulate.DEMO_NAME), output)
    production = str(read_ledger(storage).production)

    _heading(output, "7/7 report")
    out = output.stdout
    if training.synthetic:
        out.print(tables.INVENTED)
    out.print("Model families on the validation encounters (* the winner)")
    out.print(tables.models(training.models, training.winner))
    out.print("\nThe winner on unseen encounters")
    out.print(tables.scores(evaluation))
    refused = objections(evaluation.comparison, params.gate)
    out.print("\nGate: " + ("declined" if refused else "accepted"))
    out.print(tables.gate(evaluation))
    out.print(f"\n{decision}")
    out.print(f"\nThe API answered {len(answers):,} held-out encounters; {SHOWN} of them:")
    out.print(_risks(answers))
    out.print(f"largest difference between the API's and the bundle's probability: {difference:.0e}")
    out.print(f"\nThe loop, a simulation of its own ({simulate.DEMO_NAME}): retrained beside never retrained")
    out.print(tables.replayed(replay))
    out.print(f"\nIn production: version {production} of {settings.model_name}")
    out.print(_where(settings, storage, workspace.registry.tracking_uri, time.monotonic() - began))


def _approved(storage: Storage, run_id: str) -> EvaluationReport | None:
    """The evaluation of a run that was promoted before; None for any other."""
    decided = [one.decision for one in read_ledger(storage).entries if one.subject.run_id == run_id]
    promoted = "promoted" in decided or "adopted" in decided
    return read_evaluation(storage, run_id) if promoted else None


def _decide(workspace: Workspace, params: Params, settings: Settings, run_id: str) -> str:
    """The gate's decision on the winner, for the report. Raises Declined if declined with nothing in production."""
    try:
        return str(tables.promoted(promote(workspace, params.gate, settings.actor, run_id)))
    except Declined as declined:
        production = read_ledger(workspace.storage).production
        if production is None:
            raise
        return f"{declined}\nversion {production} stays in production"


def _heading(output: Output, text: str) -> None:
    output.say(f"\n[bold]{text}[/bold]")


def _ask(address: str, encounters: pl.DataFrame) -> list[dict[str, Any]]:
    answers = []
    with httpx.Client(base_url=address, timeout=10) as client:
        for encounter in encounters.select(field.name for field in CLINICAL).to_dicts():
            response = client.post("/predict", json=encounter)
            if not response.is_success:
                raise ServiceError(f"the API answered {response.status_code} to a held-out encounter: {response.text}")
            answers.append(response.json())
    return answers


def _compare(answers: list[dict[str, Any]], bundle: Bundle, encounters: pl.DataFrame) -> float:
    answered: NDArray[np.float64] = np.array([answer["probability_score"] for answer in answers])
    difference = float(np.abs(answered - bundle.predict_proba(encounters)).max())
    if not difference <= AGREEMENT:
        raise ServiceError(f"the API's probabilities differ from the bundle's by up to {difference:.1e}")
    return difference


def _risks(answers: list[dict[str, Any]]) -> Table:
    """Table of SHOWN answers in order of risk, from the lowest to the highest."""
    ranked = sorted(answers, key=lambda answer: answer["probability_score"])
    shown = [ranked[round(position)] for position in np.linspace(0, len(ranked) - 1, SHOWN)]
    table = Table("risk of readmission", "band", "flagged", "model version", box=None, pad_edge=False)
    for answer in shown:
        flagged = "yes" if answer["prediction"] else "no"
        table.add_row(f"{answer['probability_score']:.1%}", answer["risk_band"], flagged, answer["model_version"])
    return table


def _where(settings: Settings, storage: Storage, tracking_uri: str, seconds: float) -> str:
    setting = f"HEALTH_PREDICT_STORAGE={settings.storage} " if "storage" in settings.model_fields_set else ""
    command = f"{setting}{os.path.relpath(sys.argv[0])}"
    return f"""
Done in {seconds:.0f} s.
Everything is in   {storage.root}
Reports            {storage.path(layout.TRAINING)} and beside it
The loop           {world(storage, simulate.DEMO_NAME).path(layout.REPLAY_PAGE)}
Runs and models    {_to_see_runs(tracking_uri)}
Try next           {command} serve     then open http://127.0.0.1:8000/docs
                   {command} status
                   {command} monitor --batch 10 --simulation {simulate.DEMO_NAME}
                   {command} simulate --scenario concept_shift --from-batch 4 --no-api --trials 1
"""


def _to_see_runs(tracking_uri: str) -> str:
    """Address of the MLflow server or, for a database, the command that starts MLflow's interface."""
    if tracking_uri.startswith(("http://", "https://")):
        return tracking_uri
    return f"{os.path.relpath(Path(sys.executable).parent)}/mlflow ui --backend-store-uri {shlex.quote(tracking_uri)}"
