"""Who may import what, and that the tools which say so see everything."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_import_contracts_hold():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("module", ["health_predict.serving.http.server", "health_predict.bundle.model"])
def test_loading_a_bundle_needs_neither_tables_nor_trainers_nor_a_registry(module):
    heavy = ("polars", "pandas", "sklearn", "mlflow", "ray", "xgboost", "lightgbm", "catboost", "onnx", "scipy")
    code = f"import sys, {module}; print(*sorted(set({heavy!r}) & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []


def test_only_settings_reads_the_environment():
    """Adapters set defaults of libraries (setdefault) before they import them; they read nothing from there."""
    reading = ("environ[", "environ.get(", "getenv(", "environ.items")
    found = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "src").rglob("*.py")
        if path.name != "settings.py" and any(text in path.read_text() for text in reading)
    ]
    assert found == []
