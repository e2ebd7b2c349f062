"""A cue that has to be looked for: a coloured card on the back wall of a cupboard.

The cupboard has a roof and is open on one side, which faces another way in every episode, so neither the camera above
nor that of the left wrist sees into it. The right hand takes its camera from viewpoint to viewpoint until it sees the
card, and then back to where its work begins.
"""

from dataclasses import replace

import mujoco
import numpy as np

from .. import viewpoints
from ..expert import Script, Track
from ..robot import FINGER_OPEN, RobotIndex
from ..scene import Factors, add_box
from .base import Layout, Progress, Task

HALF, HEIGHT, WALL = 0.07, 0.15, 0.004  # m, of the cupboard
PLINTH = 0.1  # m; on it the card is as high as the camera, which comes nearer to it than over the roof
CARD_HALF = (0.002, 0.06, 0.065)  # m
FACING = np.radians([-130.0, -60.0])  # which way its open side looks; 0: along x
STEPS, STAY, BACK = 9, 40, 26  # control steps: of a move of the camera, beside the card, and from there to its work
GONE = 15  # control steps out of view after which the card has left it
NEAREST, FARTHEST = 2, 6  # moves from the first viewpoint to one that shows the card
READABLE = viewpoints.LARGE / 2  # share of the picture from which on the card counts as seen
TRIES = 200  # cupboards that are drawn
COLOR = (0.7, 0.6, 0.45, 1)


def add_cupboard(world: mujoco.MjsBody, place: tuple[float, float, float]) -> None:
    """The cupboard and its card, the geom "cue"; on a plinth in the middle of `place`, m."""
    body = world.add_body(name="cupboard", pos=(*place[:2], place[2] + PLINTH))
    add_box(body, "cupboard_plinth", (HALF, HALF, PLINTH / 2), (0, 0, -PLINTH / 2), COLOR)
    for name, half, where in (
        ("back", (WALL, HALF, HEIGHT / 2), (-HALF, 0, HEIGHT / 2)),
        ("left", (HALF, WALL, HEIGHT / 2), (0, HALF, HEIGHT / 2)),
        ("right", (HALF, WALL, HEIGHT / 2), (0, -HALF, HEIGHT / 2)),
        ("roof", (HALF + WALL, HALF + WALL, WALL), (0, 0, HEIGHT)),
    ):
        add_box(body, f"cupboard_{name}", half, where, COLOR)
    add_box(body, "cue", CARD_HALF, (-HALF + 2 * WALL, 0, HEIGHT / 2), (0.5, 0.5, 0.5, 1), solid=False)


def place_cupboard(
    task: Task, model: mujoco.MjModel, data: mujoco.MjData, factors: Factors, place: np.ndarray, base: np.ndarray
) -> Layout:
    """Put the cupboard somewhere near `place` (2,) so that a robot with its base at `base` must look for the card.

    `layout["look"]` holds the joints (n, 6) of the right arm at the first viewpoint and at those by which the expert
    gets to see the card; `layout["stray"]` those of some wrong moves, and `layout["back"]` those by which it gets to
    see the card from there.

    Raises:
        RuntimeError: there is no such place.
    """
    robot, (joints, _) = RobotIndex(model, task.mobile), viewpoints.lattice()
    waiting = viewpoints.resting(task.left_raised)
    robot.place(data, base, np.stack([waiting, joints[np.isfinite(joints[:, 0])][0]]), FINGER_OPEN)
    body = model.body("cupboard")
    for _ in range(TRIES):
        spot, facing = place + factors.uniform(-0.03, 0.03, 2), factors.uniform(*FACING)
        body.pos[:2], body.quat[:] = spot, (np.cos(facing / 2), 0, 0, np.sin(facing / 2))
        room = viewpoints.examine(model, data, robot, lambda trial: card_in_view(task, trial))
        away = room.moves_left()
        begin = np.flatnonzero(room.hidden & (away >= NEAREST) & (away <= FARTHEST))
        if len(begin):
            break
    else:
        raise RuntimeError(f"no viewpoint from which to look for the card in {TRIES} cupboards near {place}; move it")
    start, rng = int(factors.rng.choice(begin)), np.random.default_rng(int(factors.rng.integers(2**31)))
    look = viewpoints.LOOKS[task.look]
    way, strayed = look(room, [start], rng), viewpoints.stray(room, start, rng)
    return {"look": joints[way], "stray": joints[strayed], "back": joints[look(room, strayed, rng)]}


def looking(script: Script, layout: Layout) -> Script:
    """The script, begun by looking for the card; where nobody looks, the hand goes from there straight to its work."""
    looks = len(layout["look"]) > 1
    script = replace(script, cue_step=1, look=along(layout["look"]), stay=STAY if looks else 0, back=BACK)
    if not looks or len(layout["stray"]) == 1:
        return script
    wrong = len(layout["stray"]) - 1
    strayed = along(np.concatenate([layout["stray"], layout["back"][1:]]), wrong)
    return replace(script, astray=strayed, wrong=STEPS * wrong)


def along(joints: np.ndarray, stop: int = 0) -> Track:
    """The way of the right arm from viewpoint to viewpoint, at which it has these joints (n, 6), with a stop at one of
    them."""
    way = Track(joints[0])
    for number, there in enumerate(joints[1:], 1):
        way.through(STEPS * number, *there, speed=0.0 if number in (stop, len(joints) - 1) else 0.5)
    return way


def card_in_view(task: Task, data: mujoco.MjData) -> float:
    """The share of the right wrist camera's picture that the card fills."""
    return task.share_in_view(data, "right_wrist", "cue")


def check_card(task: Task, data: mujoco.MjData, progress: Progress) -> None:
    """Whether the card is or was in view, well or a piece of it, and whether it has left view. It may come back until
    the work behind the look has begun."""
    if progress.cue_over and progress.stage:
        return
    share = card_in_view(task, data)
    progress.cue_seen = progress.cue_seen or share >= READABLE
    progress.glimpsed = progress.glimpsed or share > 0
    progress.hidden_for = 0 if share > 0 else progress.hidden_for + 1
    progress.cue_over = progress.cue_seen and progress.hidden_for > GONE
