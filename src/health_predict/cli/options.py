"""Options that several commands have, and what they accept."""

from datetime import datetime
from typing import Annotated

import typer

from health_predict.params import Family, Target
from health_predict.training.candidates import CANDIDATES

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
OnDataset = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="`initial`, or a data set that `loop assemble` or `loop recalibrate` made."),
]
Families = Annotated[str, typer.Option(help="Comma-separated model families.")]
Trials = Annotated[int, typer.Option(min=1, help="Per family; the first is the family's good default.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same models.")]
BatchNumber = Annotated[int, typer.Option("--batch", min=1, help="Number of a batch that has arrived.")]


def families_named(listed: str) -> tuple[Family, ...]:
    chosen = tuple(name.strip() for name in listed.split(",") if name.strip())
    unknown = [name for name in chosen if name not in CANDIDATES]
    if unknown or not chosen:
        raise typer.BadParameter(
            f"{', '.join(unknown) or 'nothing'} is no model family; choose from {', '.join(CANDIDATES)}",
            param_hint="--families",
        )
    return chosen


def is_day(text: str) -> bool:
    try:
        return f"{datetime.strptime(text, '%Y-%m-%d').date():%Y-%m-%d}" == text
    except ValueError:
        return False
