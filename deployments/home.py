"""Where Guardia keeps its own things, and which Prefect server it talks to.

`GUARDIA_HOME` (default ~/.guardia) holds the embedded server's database, stored results and log. This module is
imported before Prefect, which reads its settings once.
"""

import os
from pathlib import Path

PORT = 4200


def home() -> Path:
    """Guardia's folder; made if it is not there."""
    path = Path(os.environ.get("GUARDIA_HOME", "~/.guardia")).expanduser().absolute()
    path.mkdir(parents=True, exist_ok=True)
    return path


def embedded() -> bool:
    """Whether `guardia up` runs the server itself, rather than using the one that PREFECT_API_URL names."""
    return "PREFECT_API_URL" not in os.environ


def point_at_server(url: str | None = None) -> None:
    """Make Prefect, in this process and those it starts, use Guardia's server and folder.

    Without `url`: the server that PREFECT_API_URL names, else the one that `guardia up` wrote down last.
    """
    os.environ.setdefault("PREFECT_HOME", str(home() / "prefect"))
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("PREFECT_CLI_WARN_ON_VERSION_MISMATCH", "false")
    os.environ.setdefault("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30")
    if url or embedded():
        os.environ["PREFECT_API_URL"] = url or _written()


def write_down(url: str) -> None:
    """Let other `guardia` commands of this user find the embedded server."""
    (home() / "api-url").write_text(url, encoding="utf-8")


def _written() -> str:
    try:
        return (home() / "api-url").read_text(encoding="utf-8").strip()
    except OSError:
        return f"http://127.0.0.1:{PORT}/api"
