"""The package as its users get it: a wheel, installed into an environment that has nothing else."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZipFile

import httpx
import pytest

from serving.support import Worker, export_bundle, free_port

ROOT = Path(__file__).parents[2]
PACKAGED = ("pyproject.toml", "README.md", "LICENSE", "src")
EVERY_MODULE = """
import importlib, pkgutil, sys, {package} as package
for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
"""
pytestmark = pytest.mark.slow


def uv(*arguments: str | Path, environment: Path | None = None) -> None:
    """Run uv on what its cache has; with the registry where that is not enough."""
    command = [Path(sys.executable).with_name("uv"), *arguments]
    known = {**os.environ, **({"VIRTUAL_ENV": str(environment)} if environment else {})}
    for more in (["--offline"], []):
        done = subprocess.run([*command, *more], env=known, cwd="/", capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
    raise AssertionError(done.stderr)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in PACKAGED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
        else:
            shutil.copy(ROOT / name, source / name)
    uv("build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir", built, source)
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder with the commands of a new environment that has the wheel, with an extra or without."""

    def installed(extra: str) -> Path:
        environment = tmp_path_factory.mktemp("environment")
        uv("venv", "--quiet", "--clear", "--python", sys.executable, environment)
        what = f"health-predict{f'[{extra}]' if extra else ''} @ {wheel.as_uri()}"
        uv("pip", "install", "--quiet", "-c", ROOT / "requirements" / "dev.txt", what, environment=environment)
        return environment / "bin"

    return installed


def run(command: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of an environment as a user would, who has no part of this source tree."""
    known = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment}
    return subprocess.run(
        [command, *arguments], env=known, cwd=command.parents[1], capture_output=True, text=True, check=False
    )


@contextmanager
def served(output: Path, *command: str | Path) -> Iterator[httpx.Client]:
    """A client of a service that is ready, while it runs."""
    port = free_port()
    with output.open("wb") as sink:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=sink, stderr=sink, env={"PATH": "/usr/bin"})
    service = Worker(process, port, output)
    try:
        service.wait_for_status("ok")
        with httpx.Client(base_url=service.url) as client:
            yield client
    finally:
        service.stop()


def test_the_wheel_has_every_file_of_the_source(wheel):
    package = ROOT / "src" / "health_predict"
    files = {path.relative_to(package.parent).as_posix() for path in package.rglob("*") if path.is_file()}
    with ZipFile(wheel) as archive:
        missing = files - set(archive.namelist())
    assert {name for name in missing if "__pycache__" not in name} == set()


def test_without_an_extra_the_command_explains_itself_and_names_the_extra_it_lacks(install, tmp_path):
    command = install("") / "health-predict"
    assert "Usage: health-predict" in run(command, "--help").stdout
    assert run(command, "train", "--help").returncode == 0
    assert run(command, "keys", "new", "ward-7").stdout.startswith("ward-7:")
    for arguments, extra in [
        (("data", "fetch", "--synthetic", "1000"), "pipeline"),
        (("train",), "pipeline"),
        (("status",), "pipeline"),
        (("serve",), "pipeline"),
        (("serve", "--bundle", str(tmp_path)), "serving"),
    ]:
        ended = run(command, *arguments)
        assert ended.returncode == 16, (arguments, ended.stderr)
        assert f"extra `{extra}`" in ended.stderr, arguments
        assert len(ended.stderr.splitlines()) == 1, ended.stderr
    service = run(command.with_name("python"), "-m", "health_predict.serving", "--bundle", str(tmp_path))
    assert (service.returncode, service.stderr.count("\n")) == (16, 1), service.stderr
    assert "extra `serving`" in service.stderr


def test_with_the_extra_serving_it_serves_a_bundle(install, tmp_path):
    commands = install("serving")
    imported = run(commands / "python", "-c", EVERY_MODULE.format(package="health_predict.serving"))
    assert imported.returncode == 0, imported.stderr
    bundle = export_bundle(tmp_path / "bundle")
    with served(tmp_path / "output", commands / "health-predict", "serve", "--bundle", bundle) as client:
        assert client.get("/health").status_code == 200
        assert client.get("/docs").status_code == 200
    declined = run(commands / "health-predict", "serve", "--bundle", "s3://a-bucket/bundle")
    assert (declined.returncode, "extra `s3`" in declined.stderr) == (16, True), declined.stderr
    assert "extra `pipeline`" in run(commands / "health-predict", "train").stderr


def test_with_the_extra_pipeline_every_command_has_what_it_needs(install):
    commands = install("pipeline")
    imported = run(commands / "python", "-c", EVERY_MODULE.format(package="health_predict"))
    assert imported.returncode == 0, imported.stderr
    done = run(commands / "health-predict", "data", "fetch", "--synthetic", "1000")
    assert done.returncode == 0, done.stderr
