"""Commands that score: predict and serve, with the audit log and the API keys of the API."""

from pathlib import Path
from typing import Annotated

import typer

from health_predict.cli.console import Output
from health_predict.cli.opening import bundle_folder, settings_of_environment, world_of
from health_predict.cli.options import FromBundle, Json
from health_predict.params import Params

commands = typer.Typer()
audit = typer.Typer(no_args_is_help=True, help="Verify the audit log of the API.")
keys = typer.Typer(no_args_is_help=True, help="Create API keys.")
commands.add_typer(audit, name="audit")
commands.add_typer(keys, name="keys")


@commands.command()
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
            help="Read an empty A1Cresult or max_glu_serum as `None` (test not done), as pandas writes it when it "
            "reads without keep_default_na=False.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Score a file of encounters of any size with the model in production, in bounded memory.

    Example: `health-predict predict --in encounters.csv --out risks.parquet`
    """
    from health_predict.bundle.model import load_bundle  # noqa: PLC0415
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.cli.signals import ended_by_sigterm  # noqa: PLC0415
    from health_predict.steps.model.predict import predict as step  # noqa: PLC0415
    from health_predict.store.bundle_copies import registered_version  # noqa: PLC0415

    settings, output = settings_of_environment(), Output(json)
    folder = bundle_folder(settings, bundle)
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


@commands.command()
def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port to listen on.")] = 8000,
    host: Annotated[
        str, typer.Option(help="Address to listen on; an address other than loopback requires API keys.")
    ] = "127.0.0.1",
    watch: Annotated[
        bool, typer.Option("--watch", help="Check for newly promoted versions and switch to them automatically.")
    ] = False,
    watch_seconds: Annotated[float, typer.Option(min=0.1, help="Seconds between two checks of --watch.")] = 30.0,
    bundle: FromBundle = None,
) -> None:
    """Start the HTTP API with the model in production: POST /predict, GET /health, documentation at /docs.

    SIGHUP switches to a newly promoted version; MODEL_VERSION selects a fixed version. If the registry is unavailable
    or nothing is promoted yet, --watch waits and the API is not ready; without --watch, the command ends.

    Example: `health-predict serve --port 8080 --watch`
    """
    from health_predict.cli.serve import become, supervise  # noqa: PLC0415
    from health_predict.settings import ServingSettings  # noqa: PLC0415

    settings = settings_of_environment()
    if bundle:
        if watch:
            raise typer.BadParameter("--bundle names one model, so there is nothing to --watch for; give one of them")
        become(bundle_folder(settings, bundle), host, port)

    def resolve() -> Path:
        from health_predict.steps.model.fetch_bundle import download_bundle  # noqa: PLC0415

        return download_bundle(world_of(settings), settings.model_name, settings.model_version, settings.model_alias)

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
    log: Annotated[Path, typer.Argument(help="Audit log: the file that HEALTH_PREDICT_AUDIT_LOG names.")],
    head: Annotated[
        str | None, typer.Option(help="Head that an earlier verification printed; its line must still be in the log.")
    ] = None,
    json: Json = False,
) -> None:
    """Verify the hash chain of an audit log. Exit code 10: a line was altered; the message gives its number.

    Store the printed head elsewhere: without it, a log whose last lines were deleted looks complete.

    Example: `health-predict audit verify audit.jsonl --head 9f86d081...`
    """
    from health_predict.cli import tables  # noqa: PLC0415
    from health_predict.serving.journal.audit import verify as check  # noqa: PLC0415

    Output(json).result(check(log, head), tables.verified)


@keys.command()
def new(name: Annotated[str, typer.Argument(help="Name of the caller: letters, digits, `_`, `.` and `-`.")]) -> None:
    """Create an API key for a caller. The key is shown once; add the entry to HEALTH_PREDICT_API_KEYS_FILE.

    Example: `health-predict keys new ward-7`
    """
    from health_predict.serving.http.keys import new_key  # noqa: PLC0415

    key, entry = new_key(name)
    typer.echo(f"key for {name}, not shown again: {key}", err=True)
    typer.echo(entry)
