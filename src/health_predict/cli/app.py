"""The command line's groups together. Each command builds `Settings`, runs one step, and shows what it returns."""

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
    help="Risk of readmission within 30 days for patients with diabetes: train, gate, serve, watch.\n\n"
    "Start with `health-predict demo`. Settings come from the environment (docs/settings.md).\n\n"
    "Exit codes: 0 done, 10 data, 11 storage, 12 MLflow, 13 bundle, 14 conflict, 15 service, 16 an extra "
    "is missing, 99 a rule said no.",
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

    settings = settings_of_environment()
    if synthetic:
        settings = settings.model_copy(
            update={
                "storage": f"{settings.storage.rstrip('/')}-synthetic",
                "model_name": f"{settings.model_name}Synthetic",
            }
        )
    run(settings, synthetic, trials)
