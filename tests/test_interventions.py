import numpy as np
import pytest
import torch
from conftest import program

from envs.base import Phase
from trace_il.agent import Controller
from trace_il.checkpoint import load_agent
from trace_il.env_config import env_options
from trace_il.environment import make_env
from trace_il.errors import UserError
from trace_il.interventions import INTERVENTIONS, EditedController, _editor, _first_tick, intervene
from trace_il.options import read_run
from trace_il.rollout import rollout


@pytest.fixture(scope="module")
def parts(workplace):
    config, folder = read_run(str(workplace / "runs/small"))
    return load_agent(folder / "checkpoints/last.ckpt"), make_env(config.env.id, env_options(config.env))


@pytest.mark.parametrize("kind", INTERVENTIONS)
def test_nothing_changes_before_the_intervention(parts, kind):
    agent, env = parts
    plain = rollout(Controller(agent), env, seed=5, record=True)
    untouched, changed = intervene(agent, env, 5, [kind], record=True).values()
    np.testing.assert_array_equal(np.stack(plain.recording.actions), np.stack(untouched.recording.actions))
    phase = np.array(untouched.phases)
    assert (phase == Phase.SHARED).any()
    begin = np.flatnonzero(phase == (Phase.BRANCH if kind == "reset" else Phase.SHARED))
    before = int(begin[0]) if len(begin) else len(phase)
    before -= 2 * agent.tick_every if kind == "reset" and len(begin) else 0
    for name in ("states", "actions"):
        one, two = (np.stack(getattr(r.recording, name))[:before] for r in (untouched, changed))
        np.testing.assert_array_equal(one, two)
    assert changed.cue == untouched.cue


def test_interventions_begin_and_last_as_they_say():
    phases = [Phase.CUE] * 4 + [Phase.SHARED] * 12 + [Phase.BRANCH] * 4
    ticks = {step: torch.full((1, 2, 3), float(step)) for step in range(2, 20, 2)}
    assert [_first_tick(phases, ticks, kind) for kind in INTERVENTIONS] == [12, 4, 10]
    assert [_first_tick(phases[:4], ticks, kind) for kind in INTERVENTIONS] == [-1, -1, -1]
    given = torch.ones(1, 2, 3)
    once, always = (_editor(12, given, for_ever) for for_ever in (False, True))
    assert [step for step, slots in ticks.items() if torch.equal(once(step, slots), given)] == [12]
    assert [step for step, slots in ticks.items() if torch.equal(always(step, slots), given)] == [12, 14, 16, 18]


def test_slots_are_what_the_edit_returns(parts):
    """A memory that is emptied at every tick reads as at the first one, whatever came before."""
    agent, _ = parts
    images = torch.zeros(1, len(agent.spec.cameras), *agent.spec.image_size, 3, dtype=torch.uint8)
    state = torch.zeros(1, agent.spec.state_dim)
    edited = EditedController(agent, lambda step, slots: slots * 0)
    first = edited.step(images, state)
    for _ in range(2 * agent.spec.tick_every):
        last = edited.step(images, state)
    assert edited.steps > agent.spec.tick_every
    torch.testing.assert_close(last, first)


def test_viewer_shows_an_intervention_beside_the_untouched_rollout(workplace, tmp_path):
    out = tmp_path / "swap.rrd"
    run = ["run=runs/small", "seed=5", "intervention=swap"]
    program("view.py", *run, "--save", str(out), cwd=workplace)
    assert out.stat().st_size > 10_000
    wrong = program("view.py", "run=runs/small", "intervention=shuffle", cwd=workplace, check=False)
    assert wrong.returncode == 2 and "reset, freeze, swap" in wrong.stderr


def test_intervention_needs_a_known_kind(parts):
    with pytest.raises(UserError, match="shuffle"):
        intervene(*parts, 5, ["shuffle"])
