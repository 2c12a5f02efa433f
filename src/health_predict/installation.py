"""The extras of this package: the sentence for a person who runs what was not installed."""

import re
from importlib.metadata import PackageNotFoundError, distribution, requires
from importlib.util import find_spec

from health_predict.errors import InstallationError

PACKAGE = "health-predict"
EVERYTHING = "pipeline"
DISTRIBUTIONS = {"sklearn": "scikit-learn", "xgboost": "xgboost-cpu"}  # of modules that are called otherwise
_OF_AN_EXTRA = re.compile(r"""([\w.-]+).*\bextra\s*==\s*['"]([\w-]+)['"]""")


def require(module: str, extra: str) -> None:
    """Raises InstallationError, naming the extra, where the module is not installed. Imports nothing."""
    if find_spec(module) is None:
        raise _missing(module, extra)


def lacking(error: ModuleNotFoundError, extra: str | None = EVERYTHING) -> InstallationError | None:
    """The error to show for an import that failed; None where no extra brings the module, so that it is a bug.

    `extra` is what the command needs; None: the extra that brings the module is enough.
    """
    module = (error.name or "").partition(".")[0]
    package = DISTRIBUTIONS.get(module, module.replace("_", "-"))
    matches = filter(None, map(_OF_AN_EXTRA.match, requires(PACKAGE) or ()))
    extras = {match[1]: match[2] for match in matches}
    if package not in extras or _is_installed(package):
        return None
    return _missing(package, extra or extras[package])


def _missing(package: str, extra: str) -> InstallationError:
    return InstallationError(
        f"{package} is not installed; install Health Predict with its extra `{extra}`: in the folder of the source, "
        f"`pip install '.[{extra}]'`"
    )


def _is_installed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True
