"""The prediction service: `python -m health_predict.serving --bundle FOLDER`.

The worker needs the extra `serving` only. It reads a bundle from a folder and talks to no registry:
`health-predict serve` puts the folder there.
"""

import sys
from pathlib import Path


def command(bundle: Path, host: str = "127.0.0.1", port: int = 8000) -> list[str]:
    """The command line of a worker, to be started or exec'd; its settings come from the environment.

    `bundle` may be a symbolic link: on SIGHUP the worker follows it again and takes up what it finds; until it leads
    to a folder the worker waits, not ready. Block SIGHUP while starting it: the worker lets it through when it can
    handle it, and it ends no worker before. SIGQUIT, to be blocked likewise, ends it as SIGTERM and SIGINT do, but may
    come as often as it likes: a second one of those ends it at once.
    """
    worker = [sys.executable, "-P", "-m", "health_predict.serving"]  # no module of the current folder
    return [*worker, "--bundle", str(bundle), "--host", host, "--port", str(port)]
