"""An expert that pushes a body to a place: it goes round to behind it, then pushes, and corrects as it goes."""

from typing import Protocol

import numpy as np

from ..base import ExpertAction

AWAY = 0.035  # m between finger and body while it goes round
BEHIND, STILL = 0.35, 0.56  # rad off the line of the push up to which the finger may begin, and may go on
STEER = 0.4  # share of its way aside that the finger makes good in a step
REVISION = 2  # of what demonstrations show, 0 to 9: raised whenever expert or pictures change
ASTRAY = 0.015  # how likely the finger is led astray from a step on, by `disturbance`


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def turned(vector: np.ndarray, angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([cos * vector[0] - sin * vector[1], sin * vector[0] + cos * vector[1]])


class Pushed(Protocol):
    """What the expert must know of a body on a table and of the finger that pushes it, in the plane of the table."""

    finger_radius: float  # m
    widest: float  # m, from the centre of the body to its outermost point at rest
    expert_seed: int

    @property
    def finger(self) -> np.ndarray: ...

    @property
    def centre(self) -> np.ndarray: ...

    @property
    def pace(self) -> float:
        """How far the finger moves in a step, m."""
        ...

    def reach(self, direction: np.ndarray) -> float:
        """From the centre to the edge of the body, m."""
        ...

    def clip(self, target: np.ndarray) -> np.ndarray:
        """The place within reach that is nearest to a target."""
        ...

    def push(self) -> tuple[np.ndarray, float, float] | None:
        """How the body should be pushed now: direction, distance that is left, and by how much the contact should be
        to the left of the middle; None: not at all."""
        ...


def reach(points: np.ndarray, direction: np.ndarray, widest: float) -> float:
    """From the centre of a body, the origin, to its edge, m; `points` (P, 2)."""
    near = np.abs(points @ np.array([-direction[1], direction[0]])) < 0.02
    return float((points @ direction)[near].max()) if near.any() else widest


def turned_by(points: np.ndarray, rest: np.ndarray, shares: np.ndarray) -> float:
    """The angle by which points (P, 2) of masses `shares` are turned from `rest`: the best rigid fit (Kabsch), rad."""
    moment = (shares[:, None] * points).T @ rest
    return float(np.arctan2(moment[1, 0] - moment[0, 1], moment[0, 0] + moment[1, 1]))


class GoalPose:
    """Where an oblong body should lie; it looks the same after half a turn.

    Args:
        place, angle: (2,), m, and rad.
        offset: by which it is pushed beside its middle at most, m.
    """

    TURN = 0.08  # m of offset for each rad that the body has to turn
    CROOKED, BEYOND = 0.2, 0.015  # rad from which a body is turned before all else, and m by which it may overshoot

    def __init__(self, place: np.ndarray, angle: float, offset: float) -> None:
        self.place, self.angle, self.offset = place, angle, offset
        self.axis, self.sign = 0, 1.0  # of the body, along which it is pushed, and which way

    def errors(self, centre: np.ndarray, angle: float) -> tuple[float, float]:
        """Distance, m, and angle that is missing, rad."""
        missing = (self.angle - angle + np.pi / 2) % np.pi - np.pi / 2
        return float(np.linalg.norm(self.place - centre)), float(missing)

    def push(self, centre: np.ndarray, angle: float) -> tuple[np.ndarray, float, float]:
        """As `Pushed.push`: on a face, along its normal; an offset turns the body."""
        cos, sin = np.cos(angle), np.sin(angle)
        axes = np.array([[cos, sin], [-sin, cos]])  # of the body
        along = axes @ (self.place - centre)
        if abs(along[self.axis]) < 0.006 and abs(along[1 - self.axis]) > 0.006:
            self.axis = 1 - self.axis
        missing = self.errors(centre, angle)[1]
        offset = float(np.clip(-self.TURN * missing, -self.offset, self.offset))
        remaining = float(abs(along[self.axis]))
        if abs(missing) > self.CROOKED and remaining < self.BEYOND:  # there, but crooked: a little beyond turns it
            remaining = self.BEYOND
        else:
            self.sign = 1.0 if along[self.axis] > 0 else -1.0
        return self.sign * axes[self.axis], remaining, offset


class PushExpert:
    """Closed loop on the state of the body; one for an episode.

    Args:
        env: just reset.
        disturbance: share by which what is executed follows another way than the expert's while the finger is led
            astray: on past the body, at times, from where the expert leads it round to behind the body again.
    """

    def __init__(self, env: Pushed, disturbance: float = 0.0) -> None:
        self.env, self.disturbance = env, disturbance
        self.rng = np.random.default_rng(env.expert_seed)
        self.shove, self.astray, self.pushing = np.zeros(2), 0, False

    def action(self) -> ExpertAction:
        label = self.env.clip(self._target())
        if self.astray == 0 and self.rng.random() < ASTRAY:
            self.astray = int(self.rng.integers(5, 20))
            self.shove = turned(label - self.env.finger, self.rng.normal(0, 0.6)) * self.rng.uniform(0.6, 1.2)
        executed = label
        if self.astray:
            self.astray -= 1
            executed = self.env.clip(label + self.disturbance * (self.env.finger + self.shove - label))
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
