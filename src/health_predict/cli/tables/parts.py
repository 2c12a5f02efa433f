"""Parts of what commands print."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:  # a table needs no reader of what it shows, and some of these take seconds to import
    from health_predict.evaluation.metrics import Interval

INVENTED = Text("INVENTED DATA: these numbers say nothing about patients.", style="bold red")


def labelled(report: Any, *parts: RenderableType) -> RenderableType:
    """The report below a warning, if the data are invented or the store is a simulation's."""
    labels = [INVENTED] if report.synthetic else []
    if simulation := getattr(report, "simulation", None):
        labels.append(Text(f"SIMULATION {simulation}: nothing of this is in production.", style="bold"))
    return Group(*labels, *parts)


def skipped(report: Any) -> str:
    return " (was done already)" if report.skipped else ""


def interval(found: "Interval", decimals: int = 3) -> str:
    return f"{found.estimate:.{decimals}f} ({found.lower:.{decimals}f} to {found.upper:.{decimals}f})"


def share(found: "Interval") -> str:
    """A share with its interval, in percent."""
    return f"{100 * found.estimate:.1f}% ({100 * found.lower:.1f} to {100 * found.upper:.1f})"


def number(found: float | None) -> str:
    return "" if found is None else f"{found:.3f}"


def table_of(headers: Sequence[str], rows: Iterable[Sequence[str]], title: str | None = None) -> Table:
    table = Table(*headers, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    return table
