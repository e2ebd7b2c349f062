"""What if the memory held something else? Rollouts on one seed whose slots are changed from outside.

    reset    slots are emptied two ticks before the (first) branch begins, while the robot does not show its choice yet
    freeze   once the cue has left view every tick writes upon the slots as they were then, and what it wrote is lost
    swap     in the middle of the (first) shared segment the slots become those of the same scene with another cue:
             a policy that acts on its memory must then follow the other cue

The signature and the robot go on untouched.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from envs.base import Phase

from .agent import Agent, Controller
from .errors import UserError
from .rollout import Rollout, rollout

INTERVENTIONS = ("reset", "freeze", "swap")
BEFORE = 2  # ticks between a reset and the branch


class EditedController(Controller):
    """A controller whose slots pass through `edit(control step, slots)` before every tick but the first."""

    def __init__(self, agent: Agent, edit: Callable[[int, Tensor], Tensor]) -> None:
        super().__init__(agent)
        self.edit = edit

    def observe(self, images: Tensor, state: Tensor) -> None:
        if self.steps and self.steps % self.tick_every == 0:
            self.slots = self.edit(self.steps, self.slots)
        super().observe(images, state)


def intervene(
    agent: Agent, env: Any, seed: int, kinds: Sequence[str], cue: int | None = None, record: bool = False
) -> dict[str, Rollout]:
    """The untouched rollout of a seed and one for each intervention, by name.

    Until its intervention each is the untouched one, bit by bit; where the policy never gets there it is that very
    rollout.

    Args:
        agent: a trained agent.
        env: an environment with phases and a cue that can be chosen.
        seed: of the environment's reset.
        kinds: some of `INTERVENTIONS`.
        cue: fixes the cue of all.
        record: keep everything for the viewer.
    Raises:
        UserError: unknown kind, or an environment without phases or with one cue value.
    """
    for kind in kinds:
        if kind not in INTERVENTIONS:
            raise UserError(f"intervention {kind!r} is not known; choose one of {', '.join(INTERVENTIONS)}")
    untouched, own = _watched(agent, env, seed, cue, record)
    values = getattr(env.unwrapped, "cue_values", 1)
    if -1 in untouched.phases or values < 2:
        raise UserError("interventions need an environment with phases and at least two cue values")
    out = {"untouched": untouched}
    for kind in kinds:
        tick = _first_tick(untouched.phases, own, kind)
        given = own.get(tick)
        if kind == "reset" and given is not None:
            given = given * 0
        elif kind == "swap":  # half of the values away: with two branches that is another answer at the first
            other = (untouched.cue + values // 2) % values
            given = _watched(agent, env, seed, other, False)[1].get(tick)
        if given is None:
            out[kind] = untouched
            continue
        edit = _editor(tick, given, for_ever=kind == "freeze")
        out[kind] = rollout(EditedController(agent, edit), env, seed, record=record, cue=untouched.cue)
    return out


def _watched(agent: Agent, env: Any, seed: int, cue: int | None, record: bool) -> tuple[Rollout, dict[int, Tensor]]:
    """A rollout, and the slots before each tick but the first by control step."""
    history: dict[int, Tensor] = {}

    def keep(step: int, slots: Tensor) -> Tensor:
        history[step] = slots.clone()
        return slots

    return rollout(EditedController(agent, keep), env, seed, record=record, cue=cue), history


def _first_tick(phases: list[int], ticks: dict[int, Tensor], kind: str) -> int:
    """Control step of the tick at which an intervention begins, -1 if the rollout never gets there."""
    phase = np.array(phases)
    branch = np.flatnonzero(phase == Phase.BRANCH)
    shared = np.flatnonzero(phase == Phase.SHARED)
    shared = shared[shared < branch[0]] if len(branch) else shared
    wanted = {"reset": branch[:1], "freeze": shared[:1], "swap": shared[len(shared) // 2 :][:1]}[kind]
    if not len(wanted):
        return -1
    if kind == "reset":
        earlier = sorted(tick for tick in ticks if tick < wanted[0])
        return earlier[-BEFORE] if len(earlier) >= BEFORE else -1
    return min((tick for tick in ticks if tick >= wanted[0]), default=-1)


def _editor(tick: int, given: Tensor, for_ever: bool) -> Callable[[int, Tensor], Tensor]:
    def edit(step: int, slots: Tensor) -> Tensor:
        return given if step == tick or (for_ever and step > tick) else slots

    return edit
