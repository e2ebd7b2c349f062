import io
import time
import urllib.parse
from pathlib import Path
from shutil import which

import numpy as np
import pytest
from conftest import program
from PIL import Image

from trace_il.serve import serve

CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-background-networking",
    # The page asks the viewer's makers for fonts and news; a test must not.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]


def screenshot(path: Path, seconds: float = 90, settle: float = 6) -> np.ndarray:
    """The page of a served recording in a real headless browser, once it shows many colours."""
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "no chromium; `make test` installs it"
    address, server = serve(path)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
            page = browser.new_page(viewport={"width": 1600, "height": 1000})
            page.goto(address, wait_until="commit")
            deadline, painted = time.monotonic() + seconds, None
            while time.monotonic() < deadline:
                time.sleep(1)
                picture = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
                colours = len(np.unique((picture[::3, ::3] >> 4).reshape(-1, 3), axis=0))
                if colours > 150 and painted is None:
                    painted = time.monotonic()
                if painted is not None and time.monotonic() - painted > settle:
                    break
            assert painted is not None, "the viewer never showed the recording"
            assert page.title()
            browser.close()
            return picture
    finally:
        server.kill()
        server.wait()


def test_viewer_in_a_browser_shows_cameras_and_memory(workplace):
    """The first row of the layout holds the camera, whose wall, floor and robot colours must be on the page."""
    picture = screenshot(workplace / "runs/small/recording.rrd")
    white = (picture > 240).all(-1)  # the robot is a white disc
    assert white[40:400].sum() > 100

    def near(color: tuple[int, int, int]) -> int:
        return int((np.abs(picture.astype(int) - color).max(-1) < 16).sum())

    assert near((253, 231, 37)) > 1000  # the largest values of the slot x time maps
    assert near((255, 187, 83)) > 300 and near((102, 188, 125)) > 300  # the bands of cue and branch


def test_save_and_compare(workplace, tmp_path):
    out = tmp_path / "one.rrd"
    program("view.py", "run=runs/small", "seed=5", "--save", str(out), cwd=workplace)
    assert out.stat().st_size > 10_000
    both = tmp_path / "both.rrd"
    program("view.py", "compare", "run=runs/small", "run=runs/small", "seed=5", "--save", str(both), cwd=workplace)
    assert both.stat().st_size > 1.5 * out.stat().st_size


def test_recording_replays_the_rollout(workplace, tmp_path):
    """The same seed gives the same recording: what is watched is what happened."""
    from trace_il.options import read_run
    from trace_il.viewer import record

    config, folder = read_run(str(workplace / "runs/small"))
    one, _ = record(config, folder, 5)
    two, _ = record(config, folder, 5)
    for name in ("states", "actions", "routing", "chunks"):
        np.testing.assert_array_equal(np.stack(getattr(one.recording, name)), np.stack(getattr(two.recording, name)))
    alike = one.recording.curves["route_similarity"]
    assert len(alike) == 5 and all(len(curve) == len(one.recording.ticks) for curve in alike.values())
    assert alike["state offset"].min() > 0.999  # a signature knows increments only


def test_strip_and_video(workplace):
    strip = np.asarray(Image.open(workplace / "runs/small/strip.png").convert("RGB"))
    assert strip.shape[1] > 1000 and len(np.unique(strip.reshape(-1, 3), axis=0)) > 200
    from trace_il.data.video import decode_video

    video = decode_video(next((workplace / "runs/small/videos").glob("*.mp4")))
    assert len(video) > 20 and video.std() > 10


def test_busy_port_is_an_error(workplace):
    import socket

    from trace_il.errors import UserError

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        address = None
        with pytest.raises(UserError, match=f"port {port}"):
            address, _ = serve(workplace / "runs/small/recording.rrd", port)
    assert address is None or urllib.parse.urlsplit(address).port != port
