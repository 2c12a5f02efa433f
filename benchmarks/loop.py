"""The loop's table in docs/results.md, from the replay in the storage root.

health-predict simulate --no-api --trials 1
python -m benchmarks.loop
"""

from pathlib import Path

import msgspec

from benchmarks.markers import replace_section
from health_predict.settings import Settings
from health_predict.simulation.replay import Replay, Row
from health_predict.store import layout
from health_predict.store.storage import open_storage
from health_predict.store.tables import read_json

PAGE = Path("docs/results.md")


def main() -> None:
    settings = Settings()
    storage = open_storage(settings.storage, settings.s3_endpoint)
    replay = msgspec.convert(read_json(storage, layout.REPLAY_NUMBERS), Replay)
    replace_section(PAGE, "loop", table(replay))


def table(replay: Replay) -> str:
    """Markdown: a row a batch, then the means."""
    lines = [
        "| batch | decision | gate | scored by | AUROC | never retrained | gain (95%) | estimated "
        "| AUROC, eligible stays | never | O/E | never | flagged | sensitivity | PPV |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
        *map(_line, replay.rows),
        "",
        f"Mean AUROC {replay.mean_auroc_retrained:.4f} retrained, {replay.mean_auroc_never_retrained:.4f} never "
        f"retrained ({replay.mean_auroc_difference:+.4f}); on eligible index stays "
        f"{replay.mean_auroc_eligible_retrained:.4f} and {replay.mean_auroc_eligible_never_retrained:.4f}. "
        f"Mean |O/E - 1| {replay.mean_abs_oe_deviation:.3f} and "
        f"{replay.mean_abs_oe_deviation_never_retrained:.3f}. {replay.retrainings} retrainings, "
        f"{replay.recalibrations} recalibrations, {replay.promotions} promotions. The estimate without outcomes was "
        f"off by {replay.mean_abs_estimation_error:.3f} on average (mean {replay.mean_estimation_error:+.3f}).",
    ]
    return "\n".join(lines)


def _line(row: Row) -> str:
    found = row.outcome
    if found is None:
        return f"| {row.batch} | refused {'| ' * 14}"
    gate = f"version {row.promoted}" if row.promoted else "declined" if row.objections else ""
    gain = found.auroc_difference
    cells = [
        str(row.batch),
        row.action,
        gate,
        f"version {row.version}",
        f"{found.auroc:.3f}",
        f"{found.auroc_never_retrained:.3f}",
        f"{gain.estimate:+.3f} ({gain.lower:+.3f} to {gain.upper:+.3f})",
        f"{found.auroc_estimated:.3f}",
        f"{found.auroc_eligible:.3f}",
        f"{found.auroc_eligible_never_retrained:.3f}",
        f"{found.observed_expected:.2f}",
        f"{found.observed_expected_never_retrained:.2f}",
        *(f"{share.estimate:.1%}" for share in (found.flag_rate, found.recall, found.precision)),
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
