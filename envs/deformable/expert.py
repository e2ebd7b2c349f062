"""An expert that pushes a body to a place: it goes round to behind it, then pushes, and corrects as it goes."""

from typing import TYPE_CHECKING

import numpy as np

from ..base import ExpertAction

if TYPE_CHECKING:
    from .env import SoftEnv

AWAY = 0.035  # m between finger and body while it goes round
BEHIND, STILL = 0.35, 0.56  # rad off the line of the push up to which the finger may begin, and may go on
STEER = 0.9  # share of its way aside that the finger makes good in a step


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def turned(vector: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([cos * vector[0] - sin * vector[1], sin * vector[0] + cos * vector[1]])


class PushExpert:
    """Closed loop on the state of the body; one for an episode.

    Args:
        env: just reset.
        disturbance: scale of pushes of the finger that the expert then makes good.
    """

    def __init__(self, env: "SoftEnv", disturbance: float = 0.0) -> None:
        self.env, self.disturbance = env, disturbance
        self.rng = np.random.default_rng(env.expert_seed)
        self.shove, self.shoved, self.pushing = np.zeros(2), 0, False

    def action(self) -> ExpertAction:
        label = self.env.clip(self._target())
        if self.shoved == 0 and self.rng.random() < 0.02:
            self.shoved = int(self.rng.integers(4, 10))
            self.shove = self.rng.normal(0, 0.008, 2)
        executed = label
        if self.shoved:
            self.shoved -= 1
            executed = self.env.clip(label + self.disturbance * self.shove)
        return ExpertAction(label.astype(np.float32), executed.astype(np.float32))

    def _target(self) -> np.ndarray:
        """Where the finger should be a step later."""
        env = self.env
        finger, pace = env.finger, env.pace
        push = env.push()
        if push is None:
            return finger
        direction, remaining, offset = push
        centre = env.centre
        aside = np.array([-direction[1], direction[0]])
        reach = env.reach(-direction) + env.finger_radius
        touch = centre - reach * direction + offset * aside
        arm = finger - centre
        angle = np.arctan2(-direction[0] * arm[1] + direction[1] * arm[0], -direction @ arm)  # from behind
        limit = STILL if self.pushing else BEHIND
        self.pushing = abs(angle) < limit and bool(-direction @ arm > 0)
        if self.pushing:
            along = (finger - touch) @ direction
            if along < -0.015:  # not yet there: come from behind
                return finger + pace * unit(touch - 0.004 * direction - finger)
            speed = min(pace, max(0.15 * pace, 0.35 * remaining))
            side = float((touch - finger) @ aside)
            return finger + speed * direction + float(np.clip(STEER * side, -0.6 * pace, 0.6 * pace)) * aside
        # Round the body on a circle, towards its back.
        radius = max(float(np.linalg.norm(arm)), 1e-6)
        round_at = env.widest + env.finger_radius + AWAY
        if radius < round_at - 0.01:
            return finger + pace * unit(arm)
        step = -np.sign(angle) * min(abs(angle), 1.2 * pace / round_at)
        return finger + np.clip(centre + round_at * unit(turned(arm, step)) - finger, -1.5 * pace, 1.5 * pace)
