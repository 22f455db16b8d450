"""`guardia up`: the Prefect server, the blocks, limits and deployments, and the process that runs the flows."""

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from deployments import server
from deployments.home import embedded, point_at_server

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

POLL = 1.0  # seconds between two looks for new flow runs


def up(site_files: list[Path], host: str, port: int, say: Callable[[str], None]) -> None:
    """Run until interrupted. `say` gets one line a step, for the terminal.

    Raises ConfigError for a bad site file, a taken port, or a server that does not start or answer.
    """
    with ExitStack() as stack:
        if embedded():
            say("Starting the Prefect server…")
            stack.enter_context(server.running(host, port))
        else:
            point_at_server()
        from blocks import site_file
        from deployments import catalog, dead_jobs, escalation, freshness, limits
        from tasks.ssh_connection import load_key

        read = [site_file.read(path) for path in site_files]
        for site in read:
            load_key(site.host)  # every file is checked before the first one changes anything
        for site in read:
            say(f"Registered {', '.join(site_file.register(site))}")
        sites = site_file.names()
        limits.ensure(sites)
        os.environ.setdefault("GUARDIA_INCIDENTS", str(Path("incidents").absolute()))
        say(f"Sites: {', '.join(sites) or 'none yet; add one with `guardia apply site.toml`'}")
        say(f"Incident records: {os.environ['GUARDIA_INCIDENTS']}")
        stop = threading.Event()
        for watch in (escalation.watch, dead_jobs.watch, freshness.watch):
            watcher = threading.Thread(target=watch, args=(stop,), name=watch.__module__, daemon=True)
            watcher.start()
            stack.callback(watcher.join, 10)
        stack.callback(stop.set)
        ready = f"Ready. Prefect UI: {os.environ['PREFECT_API_URL'].removesuffix('/api')}  (Ctrl-C stops it)"
        asyncio.run(_serve(catalog.deployments(sites), lambda: say(ready)))
        say("Stopped.")


async def _serve(deployments: list["RunnerDeployment"], ready: Callable[[], None]) -> None:
    """Run the flows of these deployments until SIGINT or SIGTERM."""
    from prefect.runner import Runner

    runner = Runner(name="guardia", query_seconds=POLL, pause_on_shutdown=False, limit=None)
    for deployment in deployments:
        await runner.aadd_deployment(deployment)
    work = asyncio.ensure_future(runner.start())
    await asyncio.sleep(0)
    for sign in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(sign, work.cancel)
    ready()
    try:
        await work
    except asyncio.CancelledError:
        return
