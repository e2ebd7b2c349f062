"""Rollout viewer.

python view.py run=runs/NAME [seed=...] [cue=...]           native window
python view.py run=runs/NAME --web [--port 9090]            in a browser
python view.py run=runs/NAME --save out.rrd                 a file, opened later with: python view.py file=out.rrd
python view.py run=runs/NAME intervention=swap               untouched beside the same seed with a changed memory
python view.py run=runs/NAME env.decoys=2                    the policy in another environment, as of evaluate.py
python view.py compare run=runs/A run=runs/B [seed=...]     two memories on the same seed, side by side
python view.py run=runs/soft_bodies_2d-eqcollide-0          a simulator beside the ground truth; --save out.mp4
python view.py run=runs/view_planning-graph_distillation-0  a view graph from above and an episode; split=test
python view.py play [split=test] [seed=...] [--web]          move the camera of view planning by hand
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from trace_il.cli import asked_for_help, guarded
from trace_il.errors import UserError
from trace_il.options import parse, read_run, read_simulator_run, read_view_run, run_kind


@dataclass
class ViewOptions:
    seed: int = 8_000_000  # of the rollout
    cue: int | None = None  # fixes the cue
    cleared: bool = False  # clear the memory at each tick
    intervention: str | None = None  # reset, freeze or swap the slots; see trace_il/interventions.py
    file: str | None = None  # show a recording that was saved before
    split: str = "train"  # of the rooms of view planning: train, dev, test


def _take(arguments: list[str], flag: str) -> str | None:
    """Remove `flag VALUE` from the arguments and give the value."""
    if flag not in arguments:
        return None
    index = arguments.index(flag)
    if index + 1 == len(arguments):
        raise UserError(f"{flag} needs a value")
    arguments.pop(index)
    return arguments.pop(index)


def show_simulator(run: str, options: ViewOptions, comparison: bool, path: Path) -> None:
    """Record a simulator's rollout of the scene `options.seed` into `path`."""
    from trace_il.sim_viewer import compare_run, save_video, write_recording

    if comparison or options.cue is not None or options.cleared or options.intervention is not None:
        raise UserError(f"{run} is a simulator; only seed=... can be given with it")
    config, folder = read_simulator_run(run)
    write = save_video if path.suffix == ".mp4" else write_recording
    write(path, compare_run(config, folder, options.seed))


def show_views(run: str, options: ViewOptions, comparison: bool, path: Path) -> None:
    """Record a view planner's episode of the seed into `path`."""
    from trace_il.views.viewer import show, write_recording

    if comparison or options.cue is not None or options.cleared or options.intervention is not None:
        raise UserError(f"{run} is a view planner; only seed=... and split=... can be given with it")
    write_recording(path, show(*read_view_run(run), options.seed, options.split))


def play(options: ViewOptions, web: bool, port: str | None) -> None:
    """An episode of view planning by hand."""
    import rerun as rr

    from envs.view_planning.tasks import SPLITS
    from trace_il.serve import need_display
    from trace_il.views.viewer import play

    if options.split not in SPLITS:
        raise UserError(f"split={options.split!r} must be one of {', '.join(SPLITS)}")
    if not web:
        need_display()
    rec = rr.RecordingStream("trace_il_play")
    if web:
        source = rec.serve_grpc()
        rr.serve_web_viewer(web_port=int(port or 9090), open_browser=False, connect_to=source)
        print(f"open http://127.0.0.1:{port or 9090}/?url={source}", flush=True)
    else:
        rec.spawn()
    play(rec, options.seed, options.split)


def main() -> None:
    arguments = sys.argv[1:]
    if asked_for_help(__doc__):
        return
    save, port = _take(arguments, "--save"), _take(arguments, "--port")
    web = "--web" in arguments
    if port is not None and not (port.isdigit() and int(port) < 65535):
        raise UserError(f"--port {port} must be a number below 65535")
    if save is not None and (save.startswith("--") or Path(save).is_dir()):
        raise UserError(f"--save {save} must be the name of a file")
    if save is not None and Path(save).suffix not in (".rrd", ".mp4"):
        raise UserError(f"--save {save} must end in .rrd, or in .mp4 for a simulator")
    comparison = "compare" in arguments
    runs = [word.removeprefix("run=") for word in arguments if word.startswith("run=")]
    env_words = [word for word in arguments if word.startswith("env.")]
    rest = [w for w in arguments if not w.startswith(("run=", "env.")) and w not in ("--web", "compare", "play")]
    options = parse(ViewOptions, rest, "run=, env.KEY=, ")
    if options.seed < 0:
        raise UserError(f"seed={options.seed} must not be negative")
    if options.file is not None and (save is not None or runs):
        raise UserError("file=... shows a recording that is there; leave out --save and run=...")
    if "play" in arguments:
        play(options, web, port)
        return
    from trace_il.serve import open_native, serve
    from trace_il.viewer import record, record_intervention, write_recording

    with tempfile.TemporaryDirectory() as folder:
        if options.file is not None:
            path = Path(options.file)
            if not path.exists():
                raise UserError(f"no recording at {path}")
        else:
            if len(runs) != (2 if comparison else 1):
                raise UserError(
                    f"give {'two run=... to compare' if comparison else 'one run=runs/NAME'}, got {len(runs)}"
                )
            path = Path(save) if save else Path(folder) / "rollout.rrd"
            path.parent.mkdir(parents=True, exist_ok=True)
            rollouts = {}
            if options.intervention is not None and (comparison or options.cleared):
                raise UserError("intervention=... shows one run; leave out compare and cleared")
            for run in runs:
                if env_words and run_kind(run) != "policy":
                    raise UserError(f"{env_words[0]} is for policies, {run} is a {run_kind(run)}")
                if path.suffix == ".mp4" and run_kind(run) != "simulator":
                    raise UserError(f"{run} is no simulator; --save {save} must end in .rrd (its videos/ have MP4s)")
                if run_kind(run) != "policy":
                    other = show_simulator if run_kind(run) == "simulator" else show_views
                    other(run, options, comparison, path)
                    break
                if options.split != "train":
                    raise UserError(f"split={options.split} is for view planners, {run} is a policy")
                config, run_folder = read_run(run, env_overrides=env_words)
                if options.intervention is not None:
                    rollouts = record_intervention(config, run_folder, options.seed, options.intervention, options.cue)
                    break
                result, spec = record(config, run_folder, options.seed, options.cue, options.cleared)
                name = run_folder.name if run_folder.name not in rollouts else f"{run_folder.name}_2"
                rollouts[name.replace(" ", "_")] = (result, spec)
            if rollouts:
                write_recording(path, rollouts)
        if web:
            address, process = serve(path, int(port or 0))
            print(f"open {address}   (Ctrl-C ends)", flush=True)
            try:
                process.wait()
            finally:
                process.terminate()
        elif save:
            print(f"written to {path}")
        else:
            open_native(path)


if __name__ == "__main__":
    guarded(main)
