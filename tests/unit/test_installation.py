import pytest

from health_predict import installation
from health_predict.errors import InstallationError
from health_predict.installation import lacking, require

DECLARED = ["msgspec>=0.19", 'numpy<2.5,>=2.4; extra == "serving"', 'scikit-learn>=1.9; extra == "pipeline"']


@pytest.fixture
def nothing_installed(monkeypatch):
    monkeypatch.setattr(installation, "requires", lambda _: DECLARED)
    monkeypatch.setattr(installation, "_is_installed", lambda _: False)


def missing(module: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {module!r}", name=module)


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize(("module", "package"), [("numpy.typing", "numpy"), ("sklearn.metrics", "scikit-learn")])
def test_a_missing_package_of_an_extra_is_named_with_what_the_command_needs(module, package):
    error = lacking(missing(module), "pipeline")
    assert error is not None
    assert str(error).startswith(f"{package} is not installed")
    assert "extra `pipeline`" in str(error)


@pytest.mark.usefixtures("nothing_installed")
def test_where_any_extra_will_do_the_one_that_brings_the_package_is_named():
    assert "extra `serving`" in str(lacking(missing("numpy"), None))


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("module", ["msgspec", "health_predict.gone", "nothing_of_ours"])
def test_a_module_that_no_extra_brings_is_a_bug(module):
    assert lacking(missing(module)) is None


def test_a_package_that_is_installed_but_incomplete_is_a_bug():
    assert lacking(missing("numpy.gone")) is None


def test_what_is_required_is_looked_for_and_not_imported():
    require("turtle", "serving")
    with pytest.raises(InstallationError, match="extra `s3`"):
        require("no_such_module", "s3")
