"""Commands and their options. Each builds `Settings`, runs one step, and shows what it returns."""

import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast, get_args

import typer

from health_predict import __version__
from health_predict.cli.console import Output
from health_predict.params import LIVE_TARGET, Family, Params, Protocol, SearchParams, Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from health_predict.adapters.registry import Registry
    from health_predict.settings import Settings
    from health_predict.store.storage import Storage

app = typer.Typer(
    name="health-predict",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    help="Risk of readmission within 30 days for patients with diabetes: train, gate, serve, watch.\n\n"
    "Start with `health-predict demo`. Settings come from the environment (docs/settings.md).\n\n"
    "Exit codes: 0 done, 10 data, 11 storage, 12 MLflow, 13 bundle, 14 conflict, 15 service, 16 an extra "
    "is missing, 99 a rule said no.",
)
data = typer.Typer(no_args_is_help=True, help="The dataset: fetch, validate, split.")
app.add_typer(data, name="data")
audit = typer.Typer(no_args_is_help=True, help="The audit log of the service.")
app.add_typer(audit, name="audit")
keys = typer.Typer(no_args_is_help=True, help="API keys of the service.")
app.add_typer(keys, name="keys")

Json = Annotated[bool, typer.Option("--json", help="The result as one JSON document on the last line of stdout.")]
Run = Annotated[
    str | None, typer.Argument(help="MLflow run id of a best model; the newest training's winner if left out.")
]
OnTarget = Annotated[
    Target, typer.Option("--target", help="lt30: readmitted within 30 days. any: at any time, for retrospective study.")
]
FromBundle = Annotated[
    str | None, typer.Option("--bundle", help="Use this bundle, a folder or s3://bucket/prefix, and not MLflow.")
]
InSimulation = Annotated[
    str | None, typer.Option("--simulation", metavar="NAME", help="Of a replay, in its world, instead of production.")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@data.command()
def fetch(
    source: Annotated[
        str | None, typer.Option("--from", help="Zip or CSV, local or s3://, instead of the download from UCI.")
    ] = None,
    synthetic: Annotated[
        int | None, typer.Option("--synthetic", min=1_000, help="Invent this many encounters instead.")
    ] = None,
    json: Json = False,
) -> None:
    """Get the dataset into the storage root.

    Example: `health-predict data fetch --from dataset_diabetes.zip`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.data.fetch import fetch as step  # noqa: PLC0415

    settings, output = _settings(), Output(json)
    with output.progress("download") as advance:
        report = step(
            _storage(settings),
            source or settings.raw_data,
            settings.dataset_url,
            synthetic,
            lambda received, total: advance(received, total, "bytes"),
        )
    output.result(report, tables.fetched)


@data.command()
def validate(json: Json = False) -> None:
    """Check every value; rows that cannot be right go to a quarantine file with their reasons.

    Example: `health-predict data validate --json`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.data.validate import validate as step  # noqa: PLC0415

    Output(json).result(step(_storage(_settings()), Params().validation), tables.validated)


@data.command()
def split(json: Json = False) -> None:
    """Divide the cohort: initial train, validation and test by patient, the rest in batches to replay.

    Example: `health-predict data split`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.data.split import split as step  # noqa: PLC0415

    Output(json).result(step(_storage(_settings()), Params().split), tables.split)


@app.command()
def train(
    families: Annotated[str, typer.Option(help="Comma-separated model families.")] = ",".join(get_args(Family)),
    trials: Annotated[int, typer.Option(min=1, help="Per family; the first is the family's good default.")] = (
        SearchParams.trials
    ),
    minutes: Annotated[float | None, typer.Option(min=0.1, help="Stop searching a family after this long.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same models.")] = SearchParams.seed,
    target: OnTarget = "lt30",
    force: Annotated[bool, typer.Option("--force", help="Train again although nothing changed.")] = False,
    json: Json = False,
) -> None:
    """Tune the families, fit and export the best of each, log everything to MLflow, name the winner.

    Trains on the initial data, and on all outcomes that have matured since. What the gate will compare on is set aside
    first, from what production has not seen; exit code 99 says, before anything is trained, that there is too little.
    Runs on the Ray cluster at RAY_ADDRESS, or on one of its own; a single trial needs none and is fitted here.

    Example: `health-predict train --families lightgbm,xgboost --trials 20`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.loop.assemble import assemble  # noqa: PLC0415
    from health_predict.steps.model.train import train as step  # noqa: PLC0415
    from health_predict.store.batches import matured, next_assembly  # noqa: PLC0415
    from health_predict.store.datasets import INITIAL  # noqa: PLC0415

    settings, output = _settings(), Output(json)
    search = SearchParams(families=_families(families), trials=trials, minutes=minutes, seed=seed)
    with output.training(search) as progress:
        storage, registry, params = _storage(settings), _registry(settings), Params(search=search)
        dataset = INITIAL
        if target == LIVE_TARGET and matured(storage):
            dataset = assemble(storage, params, next_assembly(storage)).dataset
        report = step(storage, registry, params, target, settings.ray_address, progress, force, dataset)
    output.result(report, tables.trained)


@app.command()
def evaluate(
    run: Run = None,
    protocol: Annotated[
        Protocol | None, typer.Option(help="Study a family's defaults on the whole cohort instead.")
    ] = None,
    family: Annotated[Family | None, typer.Option(help="With --protocol: which family; lightgbm if left out.")] = None,
    target: Annotated[
        Target | None,
        typer.Option(help="With --protocol: lt30, readmitted within 30 days, if left out; or any, at any time."),
    ] = None,
    json: Json = False,
) -> None:
    """Compare a trained model with the one in production on encounters that neither has seen.

    With `--protocol`, measure a family on the whole cohort: patient-grouped cross-validation, or the last fifth
    after training on what came before.

    Example: `health-predict evaluate --protocol grouped-cv --family lightgbm --json`
    """
    from health_predict.cli import tables  # noqa: PLC0415

    settings, output = _settings(), Output(json)
    if protocol is None:
        if family or target:
            raise typer.BadParameter("--family and --target go with --protocol: a run has its own")
        from health_predict.steps.model.evaluate import evaluate as compare  # noqa: PLC0415

        report = compare(_storage(settings), _registry(settings), Params(), settings.actor, run)
        output.result(report, tables.evaluated)
        return
    from health_predict.steps.model.study import study  # noqa: PLC0415

    with output.progress("folds") as advance:
        found = study(
            _storage(settings),
            Params(),
            protocol,
            family or "lightgbm",
            target or LIVE_TARGET,
            lambda done, folds: advance(done, folds, ""),
        )
    output.result(found, tables.studied)


@app.command()
def promote(
    run: Run = None,
    allow_rolled_back: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Let a model return that was rolled back; the ledger keeps the reason."),
    ] = None,
    json: Json = False,
) -> None:
    """Put an evaluated model into production, if the gate has no objection; exit code 99 if it has.

    Example: `health-predict promote && health-predict serve`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.model.promote import promote as step  # noqa: PLC0415

    settings = _settings()
    storage, registry = _storage(settings), _registry(settings)
    report = step(storage, registry, Params().gate, settings.actor, run, allow_rolled_back)
    Output(json).result(report, tables.promoted)


@app.command()
def rollback(
    to: Annotated[
        str | None, typer.Option(metavar="VERSION", help="The version to go back to; else the one before.")
    ] = None,
    if_production: Annotated[
        str | None, typer.Option(metavar="VERSION", help="Only if this version is in production; else change nothing.")
    ] = None,
    reason: Annotated[str, typer.Option(help="For the ledger.")] = "asked for at the command line",
    allow_rolled_back: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="With --to: go back to a version that was itself rolled back."),
    ] = None,
    json: Json = False,
) -> None:
    """Put a version into production again that was there before; the one that leaves stays out.

    Safe to repeat: a rollback that was done, or half done, is completed, and not done twice. To go back one version
    further, name it with --to.

    Example: `health-predict rollback --if-production 7 --reason "risks of surgical patients look wrong"`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.model.rollback import rollback as step  # noqa: PLC0415

    settings = _settings()
    storage, registry = _storage(settings), _registry(settings)
    report = step(storage, registry, settings.actor, reason, to, if_production, allow_rolled_back)
    Output(json).result(report, tables.rolled_back)


@app.command()
def adopt(
    reason: Annotated[str, typer.Option(help="For the ledger.")],
    source: Annotated[
        str | None,
        typer.Option("--from", help="Storage root that has what production was trained on; else the one that held it."),
    ] = None,
    json: Json = False,
) -> None:
    """Let this store speak for the registered model: after a restored backup, or where another store held it.

    What is in production stays: what this store's ledger says, or, where it says nothing, what MLflow's alias does.

    Example: `health-predict adopt --reason "the storage moved to S3"`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.model.adopt import adopt as step  # noqa: PLC0415
    from health_predict.store.storage import open_storage  # noqa: PLC0415
    from health_predict.workspace.production import holder_of  # noqa: PLC0415

    settings = _settings()
    storage, registry = _storage(settings), _registry(settings)
    before = holder_of(registry)
    other = source or (before.store if before else None)
    report = step(
        storage, registry, settings.actor, reason, open_storage(other, settings.s3_endpoint) if other else None
    )
    Output(json).result(report, tables.adopted)


@app.command()
def predict(
    source: Annotated[
        str, typer.Option("--in", help="CSV, TSV (also .gz) or Parquet file, or a folder of parts, local or s3://.")
    ],
    target: Annotated[str, typer.Option("--out", help="CSV, TSV (also .gz) or Parquet file to write, local or s3://.")],
    bundle: FromBundle = None,
    empty_means_not_measured: Annotated[
        bool,
        typer.Option(
            "--empty-means-not-measured",
            help="An empty A1Cresult or max_glu_serum says `None`: what pandas makes of it, read without "
            "keep_default_na=False.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Score a file of encounters with the model in production; any size, in bounded memory.

    Example: `health-predict predict --in encounters.csv --out risks.parquet`
    """
    from health_predict.bundle.model import load_bundle  # noqa: PLC0415
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.cli.signals import ended_by_sigterm  # noqa: PLC0415
    from health_predict.steps.model.predict import predict as step  # noqa: PLC0415
    from health_predict.store.bundle_copies import registered_version  # noqa: PLC0415

    settings, output = _settings(), Output(json)
    folder = _bundle_folder(settings, bundle)
    model = load_bundle(folder)
    with output.progress("scored") as advance, ended_by_sigterm():
        report = step(
            model,
            source,
            target,
            lambda done, total: advance(done, total, "encounters"),
            settings.s3_endpoint,
            registered_version(folder, model.sha256),
            empty_means_not_measured,
            Params().missing,
        )
    output.result(report, tables.scored)


@app.command()
def monitor(
    batch: Annotated[int | None, typer.Option(min=1, help="Number of a batch that has arrived.")] = None,
    current: Annotated[str | None, typer.Option(help="Instead: a CSV or Parquet file, local or s3://.")] = None,
    reference: Annotated[
        str | None, typer.Option(help="With --current: compare with this file, not with what production learnt from.")
    ] = None,
    outcomes: Annotated[
        str | None,
        typer.Option(help="With --current: what became of its encounters, a file with encounter_id and readmitted."),
    ] = None,
    logged: Annotated[
        str | None, typer.Option(metavar="DAY", help="Instead: what the service scored on a day, such as 2026-01-31.")
    ] = None,
    matured: Annotated[
        bool, typer.Option("--matured", help="Instead: outcomes that have matured and were not judged yet.")
    ] = False,
    simulation: InSimulation = None,
    json: Json = False,
) -> None:
    """Judge a batch: have the data, the scores or the outcomes moved? The last line is NO_DRIFT or DRIFT_DETECTED.

    Writes drift.json and report.html, and the numbers to MLflow. A check that cannot run is an error; exit code 99
    says that a batch waits for more encounters to be judged with. Encounters that ended in death or a hospice are left
    out and counted; so are outcomes of those that the model was trained on. What the service scored is read from
    HEALTH_PREDICT_PREDICTION_LOG, or from the storage root where that is not set.

    Example: `health-predict monitor --current march.parquet`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.errors import Declined  # noqa: PLC0415
    from health_predict.steps.loop.judge import judge  # noqa: PLC0415
    from health_predict.steps.loop.monitor import monitor as step  # noqa: PLC0415
    from health_predict.steps.loop.monitor import monitor_file, monitor_logged  # noqa: PLC0415

    if [batch, current, logged, matured or None].count(None) != 3 or ((reference or outcomes) and not current):
        raise typer.BadParameter(
            "give --batch, --logged, --matured, or --current with or without --reference and --outcomes"
        )
    if logged is not None and not _is_day(logged):
        raise typer.BadParameter("give one day as YYYY-MM-DD, such as 2026-01-31", param_hint="--logged")
    settings = _settings()
    storage, registry = _world(settings, simulation)
    params = Params()
    if matured:
        found = judge(storage, registry, params)
        if not found:
            raise Declined("nothing has matured that was not judged before", [])
        Output(json).result(found, tables.judged)
        return
    if batch is not None:
        judge(storage, registry, params)
        report = step(storage, registry, params, batch)
    elif logged is not None:
        report = monitor_logged(storage, registry, params, _prediction_log(settings), logged)
    else:
        current = cast("str", current)
        endpoint = settings.s3_endpoint
        report = monitor_file(storage, registry, params, current, reference, outcomes, endpoint)
    Output(json).result(report, tables.monitored)


@app.command()
def simulate(
    batches: Annotated[int | None, typer.Option(min=1, help="How many, from the first on; all if left out.")] = None,
    scenario: Annotated[str, typer.Option(help="A drift to inject, by name; docs/monitoring.md has them.")] = "none",
    from_batch: Annotated[int, typer.Option(min=1, help="The first batch with the scenario.")] = 1,
    families: Annotated[str, typer.Option(help="Comma-separated model families to retrain.")] = "lightgbm",
    trials: Annotated[int, typer.Option(min=1, help="Per family and retraining.")] = SearchParams.trials,
    seed: Annotated[int, typer.Option(help="The same seed gives the same decisions.")] = SearchParams.seed,
    api: Annotated[
        bool, typer.Option("--api/--no-api", help="Score through a running service, or in this process.")
    ] = (True),
    restart: Annotated[
        bool, typer.Option("--restart", help="Drop the earlier replay of this name and start over.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Of the replay's world; `replay`, or after the scenario, if left out.")
    ] = None,
    json: Json = False,
) -> None:
    """Replay the future: batches arrive, are judged and scored, outcomes mature, models are retrained and gated.

    A replay is a world of its own, below simulations/: it begins with what is in production, and changes nothing there.
    Stopped anywhere, the same command goes on from there. Writes reports/replay/index.html in its world.

    Example: `health-predict simulate --scenario concept_shift --from-batch 4 --no-api`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.cli.simulate import DEMO_NAME, Options, run  # noqa: PLC0415
    from health_predict.simulation.scenarios import SCENARIOS  # noqa: PLC0415

    if scenario not in SCENARIOS:
        raise typer.BadParameter(f"choose from {', '.join(SCENARIOS)}", param_hint="--scenario")
    if name == DEMO_NAME or (name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name)):
        raise typer.BadParameter(
            f"letters, digits, `_` and `-` only, at most 64, and not {DEMO_NAME}, which is the demo's",
            param_hint="--name",
        )
    output = Output(json)
    params = Params(search=SearchParams(families=_families(families), trials=trials, seed=seed))
    options = Options(batches, scenario, from_batch, api, restart, name)
    output.result(run(_settings(), params, options, output), tables.replayed)


@app.command()
def serve(
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    host: Annotated[str, typer.Option(help="Address to listen on; other than loopback needs API keys.")] = "127.0.0.1",
    watch: Annotated[
        bool, typer.Option("--watch", help="Look for a newly promoted version and take it up, without being told to.")
    ] = False,
    watch_seconds: Annotated[float, typer.Option(min=0.1, help="How often --watch looks.")] = 30.0,
    bundle: FromBundle = None,
) -> None:
    """Answer over HTTP with the model in production: POST /predict, GET /health, documentation at /docs.

    SIGHUP takes up a newly promoted version. MODEL_VERSION pins one. With --watch it waits for a registry that is down
    and for a first promotion, not ready; without, either ends it.

    Example: `health-predict serve --port 8080 --watch`
    """
    from health_predict.cli.serve import become, supervise  # noqa: PLC0415
    from health_predict.settings import ServingSettings  # noqa: PLC0415

    settings = _settings()
    if bundle:
        if watch:
            raise typer.BadParameter("--bundle names one model, so there is nothing to --watch for; give one of them")
        become(_bundle_folder(settings, bundle), host, port)

    def resolve() -> Path:
        from health_predict.steps.model.fetch_bundle import download_bundle  # noqa: PLC0415

        return download_bundle(*_model(settings))

    code = supervise(
        resolve,
        host=host,
        port=port,
        watch_seconds=watch_seconds if watch else None,
        drain_seconds=ServingSettings().drain_seconds,
    )
    raise typer.Exit(code)


@audit.command()
def verify(
    log: Annotated[Path, typer.Argument(help="The file that HEALTH_PREDICT_AUDIT_LOG names.")],
    head: Annotated[
        str | None, typer.Option(help="What an earlier call returned: its line must still be there.")
    ] = None,
    json: Json = False,
) -> None:
    """Check the chain of an audit log; exit code 10 names the first line that was altered.

    Keep the head that is returned elsewhere: without it, a log that was cut at its end cannot be told from a whole one.

    Example: `health-predict audit verify audit.jsonl --head 9f86d081...`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.serving.journal.audit import verify as check  # noqa: PLC0415

    Output(json).result(check(log, head), tables.verified)


@keys.command()
def new(name: Annotated[str, typer.Argument(help="Of the caller: letters, digits, `_`, `.` and `-`.")]) -> None:
    """Make an API key for a caller. The key is shown once; the entry goes into HEALTH_PREDICT_API_KEYS_FILE.

    Example: `health-predict keys new ward-7`
    """
    from health_predict.serving.http.keys import new_key  # noqa: PLC0415

    key, entry = new_key(name)
    typer.echo(f"key for {name}, not shown again: {key}", err=True)
    typer.echo(entry)


@app.command()
def status(simulation: InSimulation = None, json: Json = False) -> None:
    """Show what is done, what is in production and why, what is wrong, and what to do next. Changes nothing.

    Example: `health-predict status`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.steps.model.status import status as step  # noqa: PLC0415

    settings = _settings()
    if simulation is None and settings.has_no_registry:
        report = step(_storage(settings), None)
    else:
        report = step(*_world(settings, simulation))
    Output(json).result(report, tables.status)


@app.command()
def demo(
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="Invented encounters: no download; results mean nothing.")
    ] = False,
    trials: Annotated[int, typer.Option(min=1, help="Per family.")] = SearchParams.trials,
) -> None:
    """Do the whole main job: fetch, validate, split, train, evaluate, gate, promote, serve, ask the API.

    Run again, it goes on where it was, or shows the results at once. `--synthetic` keeps to a storage root of its
    own, so that invented and real results never mix.

    Example: `health-predict demo`
    """
    from health_predict.cli.demo import run  # noqa: PLC0415

    settings = _settings()
    if synthetic:
        settings = settings.model_copy(
            update={
                "storage": f"{settings.storage.rstrip('/')}-synthetic",
                "model_name": f"{settings.model_name}Synthetic",
            }
        )
    run(settings, synthetic, trials)


def _settings() -> "Settings":
    from health_predict.settings import Settings  # noqa: PLC0415

    return Settings()


def _storage(settings: "Settings") -> "Storage":
    from health_predict.store.manifests import check_layout  # noqa: PLC0415
    from health_predict.store.storage import open_storage  # noqa: PLC0415

    storage = open_storage(settings.storage, settings.s3_endpoint)
    check_layout(storage)
    return storage


def _prediction_log(settings: "Settings") -> "Storage":
    from health_predict.settings import ServingSettings  # noqa: PLC0415
    from health_predict.store.storage import open_storage  # noqa: PLC0415

    return open_storage(ServingSettings().prediction_log or settings.storage, settings.s3_endpoint)


def _registry(settings: "Settings") -> "Registry":
    from health_predict.adapters.registry import Registry  # noqa: PLC0415

    return Registry(settings.resolved_tracking_uri, settings.model_name, settings.artifact_root)


def _bundle_folder(settings: "Settings", bundle: str | None) -> Path:
    if bundle:
        from health_predict.store.bundle_copies import copy_bundle  # noqa: PLC0415

        return copy_bundle(bundle, settings.cache, settings.s3_endpoint)
    from health_predict.steps.model.fetch_bundle import fetch_bundle  # noqa: PLC0415

    return fetch_bundle(*_model(settings))


def _model(settings: "Settings") -> "tuple[Storage, Callable[[], Registry], str, str | None, str, Path]":
    """What says which version is meant, and where its bundle is copied to."""
    version, alias = settings.model_version, settings.model_alias
    return _storage(settings), lambda: _made_registry(settings), settings.model_name, version, alias, settings.cache


def _world(settings: "Settings", simulation: str | None) -> "tuple[Storage, Registry]":
    """The store and the registry; with the name of a replay, those of its world."""
    if simulation is None:
        return _storage(settings), _made_registry(settings)
    from health_predict.store.simulations import existing_world  # noqa: PLC0415

    place, found = existing_world(_storage(settings), simulation)
    return place, _made_registry(settings).for_model(found.model)


def _made_registry(settings: "Settings") -> "Registry":
    """The registry, for what only reads: it makes none. TrackingError where there is none yet."""
    if settings.has_no_registry:
        from health_predict.errors import TrackingError  # noqa: PLC0415

        raise TrackingError(
            f"nothing was trained in {settings.storage}, so nothing is in production; `health-predict demo` does it "
            "all, or train, evaluate, and run `health-predict promote` first"
        )
    return _registry(settings)


def _is_day(text: str) -> bool:
    try:
        return f"{datetime.strptime(text, '%Y-%m-%d').date():%Y-%m-%d}" == text
    except ValueError:
        return False


def _families(listed: str) -> tuple[Family, ...]:
    chosen = tuple(name.strip() for name in listed.split(",") if name.strip())
    unknown = [name for name in chosen if name not in get_args(Family)]
    if unknown or not chosen:
        raise typer.BadParameter(
            f"{', '.join(unknown) or 'nothing'} is no model family; choose from {', '.join(get_args(Family))}",
            param_hint="--families",
        )
    return cast("tuple[Family, ...]", chosen)
