"""What if the memory held something else? Rollouts on one seed whose slots are changed from outside.

    reset    slots are emptied when the branch begins
    freeze   nothing is written any more once the cue has left view
    swap     in the middle of the shared segment the slots become those of the same scene with another cue:
             a policy that acts on its memory must then follow the other cue

The signature and the robot go on untouched.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from .agent import Agent, Controller
from .errors import UserError
from .rollout import Rollout, rollout

INTERVENTIONS = ("reset", "freeze", "swap")
CUE, SHARED, BRANCH = 1, 2, 3  # phases; see envs/base.py


class EditedController(Controller):
    """A controller whose slots pass through `edit(control step, slots)` before every tick but the first."""

    def __init__(self, agent: Agent, edit: Callable[[int, Tensor], Tensor]) -> None:
        super().__init__(agent)
        self.edit = edit

    def observe(self, images: Tensor, state: Tensor) -> None:
        if self.steps and self.steps % self.tick_every == 0:
            self.slots = self.edit(self.steps, self.slots)
        super().observe(images, state)


def intervene(agent: Agent, env: Any, seed: int, kind: str, cue: int | None = None) -> tuple[Rollout, Rollout]:
    """The untouched rollout of a seed and the one with an intervention, both recorded.

    Until the intervention both are the same, bit by bit; if the policy never gets there, to the end.

    Args:
        agent: a trained agent.
        env: an environment with phases and a cue that can be chosen.
        seed: of the environment's reset.
        kind: one of `INTERVENTIONS`.
        cue: fixes the cue of both.
    Raises:
        UserError: unknown kind, or an environment without phases or with one cue value.
    """
    if kind not in INTERVENTIONS:
        raise UserError(f"intervention {kind!r} is not known; choose one of {', '.join(INTERVENTIONS)}")
    history: dict[int, Tensor] = {}

    def keep(step: int, slots: Tensor) -> Tensor:
        history[step] = slots.clone()
        return slots

    untouched = rollout(EditedController(agent, keep), env, seed, record=True, cue=cue)
    assert untouched.recording is not None
    if "phase" not in untouched.recording.info[0] or getattr(env.unwrapped, "cue_values", 1) < 2:
        raise UserError("interventions need an environment with phases and at least two cue values")
    phase = np.array([info["phase"] for info in untouched.recording.info])
    own, every = dict(history), agent.spec.tick_every
    shared, branch = np.flatnonzero(phase == SHARED), np.flatnonzero(phase == BRANCH)
    never = len(phase) + every
    if kind == "reset":
        start = int(branch[0]) if len(branch) else never

        def edit(step: int, slots: Tensor) -> Tensor:
            return slots * 0 if start <= step < start + every else slots
    elif kind == "freeze":
        start = int(shared[0]) if len(shared) else never
        held = own[min((s for s in own if s >= start), default=min(own))]

        def edit(step: int, slots: Tensor) -> Tensor:
            return held if step >= start else slots
    else:
        start = int(np.median(shared)) if len(shared) else never
        history.clear()
        other = (untouched.cue + 1) % env.unwrapped.cue_values
        rollout(EditedController(agent, keep), env, seed, cue=other)
        given = history.get(min((s for s in history if s >= start), default=-1))

        def edit(step: int, slots: Tensor) -> Tensor:
            return given if given is not None and start <= step < start + every else slots

    return untouched, rollout(EditedController(agent, edit), env, seed, record=True, cue=untouched.cue)
