"""All groups of commands in one application. A command builds `Settings`, runs one step and shows the step's report."""

from typing import Annotated

import typer

from health_predict import __version__
from health_predict.cli import data, loop, model, scoring
from health_predict.cli.opening import settings_of_environment
from health_predict.params import SearchParams

app = typer.Typer(
    name="health-predict",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    help="Predict readmission within 30 days for patients with diabetes: train, evaluate, promote, serve and monitor "
    "models.\n\n"
    "Start with `health-predict demo`. Environment variables hold the settings (docs/settings.md).\n\n"
    "Exit codes: 0 success, 2 invalid command line, 10 data, 11 storage, 12 MLflow, 13 bundle, 14 conflict, 15 API or "
    "Ray cluster, 16 missing extra, 99 declined by a rule.",
)
app.add_typer(data.commands, name="data")
app.add_typer(data.intake, name="intake")
app.add_typer(model.commands)
app.add_typer(loop.commands)
app.add_typer(scoring.commands)


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


@app.command()
def demo(
    synthetic: Annotated[
        bool,
        typer.Option(
            "--synthetic", help="Use invented encounters and download nothing. Results say nothing about patients."
        ),
    ] = False,
    trials: Annotated[int, typer.Option(min=1, help="Trials per model family.")] = SearchParams.trials,
) -> None:
    """Run every step on the public dataset: fetch, validate, split, train, evaluate, promote, serve, replay.

    A second run skips the steps that are complete. `--synthetic` uses a separate storage root, so invented and real
    results never mix.

    Example: `health-predict demo`
    """
    from health_predict.cli.demo import run  # noqa: PLC0415

    settings = settings_of_environment()
    if synthetic:
        settings = settings.model_copy(
            update={
                "storage": f"{settings.storage.rstrip('/')}-synthetic",
                "model_name": f"{settings.model_name}Synthetic",
            }
        )
    run(settings, synthetic, trials)
