"""The prediction service: `python -m health_predict.serving --bundle FOLDER`.

The worker needs the extra `serving` only. It reads a bundle from a folder and connects to no registry:
`health-predict serve` copies the bundle into that folder.
"""

import sys
from pathlib import Path


def command(bundle: Path, host: str = "127.0.0.1", port: int = 8000) -> list[str]:
    """The command line of a worker, to be started or exec'd; its settings come from the environment.

    `bundle` may be a symbolic link: on SIGHUP the worker follows it again and loads the bundle found; until it leads to
    a folder the worker waits, not ready. Block SIGHUP and SIGQUIT while starting the worker, which unblocks them when
    it can handle them; before that they would end it. SIGTERM, SIGINT and SIGQUIT end the worker after draining; a
    second SIGTERM or SIGINT ends it at once, further SIGQUITs do not.
    """
    worker = [sys.executable, "-P", "-m", "health_predict.serving"]  # -P: imports no module from the current folder
    return [*worker, "--bundle", str(bundle), "--host", host, "--port", str(port)]
