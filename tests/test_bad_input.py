"""What the programs say to input that they cannot use: one line that names it, and a status."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, SMALL, program


@pytest.fixture(scope="module", autouse=True)
def broken(workplace: Path) -> None:
    (workplace / "runs/small/broken.ts").write_text("")


def damaged_checkpoint(workplace: Path, name: str, edit) -> str:
    run = workplace / "runs" / name
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_bytes((workplace / "runs/small/config.yaml").read_bytes())
    edit(workplace / "runs/small/checkpoints/last.ckpt", run / "checkpoints/last.ckpt")
    return f"run=runs/{name}"


def other_version(source: Path, target: Path) -> None:
    checkpoint = torch.load(source, weights_only=True)
    checkpoint["trace_il"]["format"] = 0
    torch.save(checkpoint, target)


def half(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes()[: source.stat().st_size // 2])


BAD = {
    "unknown key": (["train.py", "seeed=1"], "seeed"),
    "unknown nested key": (["train.py", "env=corridor", "env.delai=3"], "delai"),
    "forced key": (["train.py", "+trainer.speed=3"], "trainer.speed"),
    "unknown option": (["train.py", "memory=lstm"], "gru lru none retrieval trace transformer"),
    "wrong type": (["train.py", "seed=abc"], "abc"),
    "impossible value": (["train.py", "policy.chunk=2", "policy.actions_per_query=2"], "policy.chunk=2 is shorter"),
    "indivisible chunk": (["train.py", "policy.chunk=41"], "multiple of actions_per_query"),
    "start of another agent": (
        ["train.py", *SMALL, "name=n", "memory=gru", "trainer.init=runs/small/checkpoints/last.ckpt"],
        "is of another agent",
    ),
    "start with other ticks": (
        ["train.py", *SMALL, "name=n", "agent.tick_every=4", "trainer.init=runs/small/checkpoints/last.ckpt"],
        "is of an agent with tick_every=2, this one has 4",
    ),
    "residual of nothing": (["train.py", "policy=diffusion", "trainer.residual=1"], "needs policy=act"),
    "no teacher": (["train.py", "trainer.distillation=1", "trainer.teacher=none"], "needs trainer.teacher=attention"),
    "no such action": (["train.py", "agent.relative=[elbow]"], "agent.relative: 'elbow' matches none of the actions"),
    "unknown profile": (["train.py", "profile=refrence"], "refrence"),
    "relative to nothing": (["train.py", "env=corridor", "agent.relative=[vx]"], "which the state does not have"),
    "impossible slots": (["train.py", "memory.slots=0"], "slots=0"),
    "odd images": (["train.py", "env.image_size=65"], "even image sizes"),
    "no policy of ours": (["evaluate.py", "policy=runs/small/broken.ts"], "broken.ts is not an exported policy"),
    "viewed elsewhere": (["view.py", "run=runs/small", "env.dellay=2", "--save", "x.rrd"], "Key 'dellay' not in"),
    "no such file type": (["view.py", "run=runs/small", "--save", "x.avi"], "must end in .rrd"),
    "no video of a policy": (["view.py", "run=runs/small", "--save", "x.mp4"], "is no simulator"),
    "no such split": (["view.py", "play", "split=tst", "--web"], "must be one of train, dev, test"),
    "impossible cue": (["view.py", "run=runs/small", "cue=7", "--save", "x.rrd"], "cue must be in 0..1, got 7"),
    "no GPU": (["train.py", "trainer.accelerator=gpu"], "torch sees no GPU"),
    "other configuration": (["train.py", *SMALL, "name=small", "seed=3"], "seed=0, not 3"),
    "demonstrations of something else": (
        ["train.py", *SMALL, "name=n", "env.delay=30", "data.root=demonstrations"],
        "data.root=demonstrations was collected with env_options.delay=20, not 30",
    ),
    "no such demonstrations": (
        ["train.py", *SMALL, "name=n", "data.root=demonstratons"],
        "no dataset at demonstratons",
    ),
    "scenes that were shown": (["train.py", "evaluation.seed=100"], "would judge scenes that demonstrations show"),
    "scenes that a dataset shows": (
        ["train.py", *SMALL, "name=n", "data.root=demonstrations", "evaluation.seed=1"],
        "evaluation.seed=1 would judge scenes that demonstrations shows (seeds 0 to",
    ),
    "no account": (["train.py", "env=corridor", "wandb=online"], "wandb=online needs an account"),
    "no export": (["evaluate.py", "policy=runs/small/checkpoints/last.ckpt"], "must be an exported .ts file"),
    "one name for two": (["train.py", "-m", "memory=none,gru", "name=same", *SMALL], "would share one name"),
    "start that is deleted": (
        ["train.py", *SMALL, "name=small", "overwrite=true", "trainer.init=runs/small/checkpoints/last.ckpt"],
        "would delete runs/small, and trainer.init=runs/small/checkpoints/last.ckpt with it",
    ),
    "another seed": (
        ["collect.py", "env=corridor", "env.delay=20", "data.seed=3", "data.episodes=8", "data.root=demonstrations"],
        "was collected with seed=0, not 3",
    ),
    "negative seed": (["train.py", "seed=-1"], "seed=-1 must lie in [0, 2^32)"),
    "seed too large": (["train.py", "seed=99999999999"], "seed=99999999999 must lie in"),
    "negative evaluation seed": (["train.py", "evaluation.seed=-1"], "evaluation.seed=-1"),
    "no cluster": (
        ["train.py", "parallel.ray_address=127.0.0.1:1"],
        "no Ray cluster at parallel.ray_address=127.0.0.1:1",
    ),
    "no demonstrations": (["collect.py", "data.episodes=0"], "data.episodes=0 must be at least 1"),
    "not a file": (["view.py", "run=runs/small", "--save", "runs"], "must be the name of a file"),
    "no folder": (["train.py", "env=corridor", "runs=config.yaml/x"], "Not a directory"),
    "no run": (["evaluate.py", "run=runs/nobody"], "config.yaml is missing"),
    "no policy": (["evaluate.py"], "run=runs/NAME or policy="),
    "no word": (["evaluate.py", "runs/small"], "options are key=value"),
    "unknown run option": (["evaluate.py", "run=runs/small", "episoden=3"], "episoden"),
    "other camera size": (["evaluate.py", "run=runs/small", "env.image_size=64"], "expects 32 x 32 images"),
    "other robot": (["evaluate.py", "run=runs/small", "env=delayed_evidence"], "camera 'top'"),
    "no display": (["view.py", "run=runs/small"], "use --web"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_a_status(workplace, case):
    (name, *arguments), message = BAD[case]
    if case == "no GPU" and torch.cuda.is_available():
        arguments = ["trainer.accelerator=gpu", "trainer.devices=99"]
        message = "torch sees"
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "WANDB_API_KEY")}
    begin = time.monotonic()
    out = subprocess.run(
        [sys.executable, str(ROOT / name), *arguments], cwd=workplace, capture_output=True, text=True, env=environment
    )
    assert out.returncode == 2, out.stdout + out.stderr
    assert len(out.stderr.strip().splitlines()) == 1 and out.stderr.startswith("error: "), out.stderr
    assert message in out.stderr
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize(("edit", "message"), [(other_version, "checkpoint format 0"), (half, "damaged")])
def test_bad_checkpoints_are_refused(workplace, edit, message):
    run = damaged_checkpoint(workplace, edit.__name__, edit)
    for name in ("evaluate.py", "export.py"):
        out = program(name, run, cwd=workplace, check=False)
        assert out.returncode == 2 and message in out.stderr and len(out.stderr.strip().splitlines()) == 1, out.stderr


def test_stack_trace_on_request(workplace):
    out = subprocess.run(
        [sys.executable, str(ROOT / "evaluate.py"), "run=runs/nobody"],
        cwd=workplace, capture_output=True, text=True, env={**os.environ, "TRACE_IL_DEBUG": "1"},
    )  # fmt: skip
    assert out.returncode != 0 and "Traceback" in out.stderr
