"""Names below the storage root, whatever the names of the files that they are made of."""

import pytest

from health_predict.store import layout
from health_predict.store.storage import Folder

DIGEST = "0123456789abcdef"


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("march", "files/march-0123456789ab"),
        ("märz 1", "files/märz 1-0123456789ab"),
        ("a\nb", "files/a_b-0123456789ab"),
        ("a\\b", "files/a_b-0123456789ab"),
        (".march", "files/_.march-0123456789ab"),
        ("ä" * 120, f"files/{'ä' * 75}-0123456789ab"),
        ("x" * 250, f"files/{'x' * 150}-0123456789ab"),
    ],
)
def test_a_file_s_report_has_a_name_that_every_store_takes(tmp_path, stem, name):
    assert layout.judged_file(stem, DIGEST) == name
    Folder(str(tmp_path)).write(layout.drift_report(name), b"")
