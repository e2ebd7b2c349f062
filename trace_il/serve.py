"""Show a recording: in a browser of this machine, or in the native window."""

import os
import socket
import subprocess
import time
import urllib.parse
from pathlib import Path

from .errors import UserError


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def _rerun_binary() -> str:
    import rerun_cli

    return str(Path(rerun_cli.__file__).parent / "rerun")


def serve(path: Path, port: int = 0) -> tuple[str, "subprocess.Popen[bytes]"]:
    """Serve a recording to browsers of this machine; the address to open and the server process.

    Args:
        path: of the recording.
        port: of the page; its data come from the next one. 0: any two that are free.
    Raises:
        UserError: the server does not come up within 20 s, or a port is taken.
    """
    ports = (port, port + 1) if port else (_free_port(), _free_port())
    for one in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", one)) == 0:
                raise UserError(f"port {one} is taken; give another --port, of which the next one is free too")
    port, data_port = ports
    command = [
        _rerun_binary(),
        str(path),
        "--serve-web",
        "--bind",
        "127.0.0.1",
        "--web-viewer-port",
        str(port),
        "--port",
        str(data_port),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.1)
        else:
            source = urllib.parse.quote(f"rerun+http://127.0.0.1:{data_port}/proxy", safe="")
            return f"http://127.0.0.1:{port}/?url={source}&hide_welcome_screen=1", process
    process.kill()
    raise UserError(f"the viewer's web server did not start on port {port}; give another --port")


def need_display() -> None:
    """Raise a UserError where the native viewer has no display."""
    if os.name == "posix" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or os.uname().sysname == "Darwin"
    ):
        raise UserError("no display for the native viewer; use --web for a browser or --save out.rrd for a file")


def open_native(path: Path) -> None:
    """Open a recording in the native viewer.

    Raises:
        UserError: there is no display, or the viewer fails.
    """
    need_display()
    code = subprocess.run([_rerun_binary(), str(path)]).returncode
    if code:
        raise UserError(f"the native viewer ended with status {code}; use --web for a browser")
