"""Cable: dock a cable's plug in the middle and, much later, plug it into the port of the side it came from.

The cable, a chain of links with elastic joints, is fixed to the table at its far end; its plug stands on the left
or on the right. The hand of that side brings it to the dock. Later the same hand plugs it into the port of that side;
with more than two cue values there are two places and two ports a side. The slack of the cable still bulges a little to
the side it came from: part of the evidence stays in view. Fixed base, origin evidence, a deformable cable.
"""

from typing import Any

import mujoco
import numpy as np

from ..expert import DOWN, Script, Track
from ..robot import FINGER_OPEN
from ..scene import Factors, add_box, add_open_box
from .base import Layout, Progress, Task, held

TABLE = 0.40  # height of the table top, m
ANCHOR, ANCHOR_HEIGHT = np.array([0.66, 0.0]), 0.0135  # m; the cable is laid over the walls of the ports, and sinks
PLACES = np.array([[0.44, 0.24], [0.44, -0.24], [0.56, 0.30], [0.56, -0.30]])  # of the plug, one a cue value
DOCK = np.array([0.40, 0.0])
PORTS = np.array([[0.54, 0.17], [0.54, -0.17], [0.33, 0.20], [0.33, -0.20]])
LINKS, LINK = 14, 0.028  # number and length of the links, m
RADIUS = 0.005  # of the cable, m
PLUG_HALF = 0.03  # half the height of the plug, m
SOCKET_HALF = 0.04  # inner half width of dock and ports, m
WALL = 0.008  # height of their walls, m; the cable lies over them
GRAY, DARK, WHITE = (0.45, 0.47, 0.5, 1), (0.12, 0.12, 0.14, 1), (0.95, 0.95, 0.95, 1)


def arc_angles(target: np.ndarray) -> np.ndarray:
    """Angles (LINKS,) of a chain of constant curvature from the origin to `target` (2,), the first one absolute."""

    def end(first: float, bend: float) -> np.ndarray:
        heading = first + bend * np.arange(LINKS)
        return LINK * np.array([np.cos(heading).sum(), np.sin(heading).sum()])

    distance, direction = np.linalg.norm(target), np.arctan2(target[1], target[0])
    low, high = 0.0, 2 * np.pi / LINKS
    for _ in range(60):  # the chord shortens as the chain bends
        middle = (low + high) / 2
        low, high = (middle, high) if np.linalg.norm(end(0, middle)) > distance else (low, middle)
    bend = low if target[1] >= 0 else -low
    chord = end(0, bend)
    angles = np.full(LINKS, bend)
    angles[0] = direction - np.arctan2(chord[1], chord[0])
    return angles


class Cable(Task):
    name = "cable"
    version = 2
    description = "dock the plug in the middle and later plug it into the port of the side that it came from"
    mobile = False
    horizon = 350
    max_cue_values = len(PORTS)
    stages = (("plug", "plug_taken"), ("plug", "plug_docked"), ("plug", "port_reached"), ("plug", "plugged"))
    visual_only = False
    tables = ("table",)
    decoy_half = (0.014, 0.014, PLUG_HALF)
    decoy_colors = (WHITE,)

    def sockets(self) -> list[str]:
        """Bodies of the ports, and of the dock."""
        return [*(f"port_{number}" for number in range(self.cue_values)), "dock"]

    def build(self, spec: mujoco.MjSpec) -> None:
        world = spec.worldbody
        add_box(world, "table", (0.30, 0.55, 0.02), (0.47, 0, TABLE - 0.02), (1, 1, 1, 1), material="table_0")
        add_box(world, "outlet", (0.03, 0.04, 0.03), (ANCHOR[0] + 0.03, 0, TABLE + 0.03), GRAY)
        for name, place in zip(self.sockets(), (*PORTS[: self.cue_values], DOCK), strict=True):
            socket = world.add_body(name=name, pos=(*place, TABLE))
            add_open_box(socket, name, (SOCKET_HALF, SOCKET_HALF), WALL, DARK if name != "dock" else GRAY)
        ball, capsule = mujoco.mjtJoint.mjJNT_BALL, mujoco.mjtGeom.mjGEOM_CAPSULE
        body = world.add_body(name="cable_0", pos=(*ANCHOR, TABLE + ANCHOR_HEIGHT))
        for number in range(LINKS):
            if number:
                body = body.add_body(name=f"cable_{number}", pos=(LINK, 0, 0))
            body.add_joint(name=f"cable_{number}", type=ball, stiffness=0.004, damping=0.004, armature=2e-5)
            ends = (0, 0, 0, LINK, 0, 0)
            body.add_geom(
                type=capsule, size=(RADIUS, 0, 0), fromto=ends, mass=0.002, friction=(0.3, 0.01, 0.001), rgba=DARK
            )
        for number in range(3):  # they come out of the outlet
            spec.add_exclude(bodyname1="world", bodyname2=f"cable_{number}")
        plug = body.add_body(name="plug", pos=(LINK, 0, 0))
        plug.add_joint(name="plug", type=ball, damping=0.002, armature=2e-5)
        rough: dict[str, Any] = {"friction": (1.5, 0.02, 0.001), "condim": 4}
        cylinder = mujoco.mjtGeom.mjGEOM_CYLINDER
        plug.add_geom(
            name="plug",
            type=cylinder,
            size=(0.014, PLUG_HALF, 0),
            pos=(0, 0, PLUG_HALF),
            mass=0.03,
            rgba=WHITE,
            **rough,
        )
        plug.add_geom(name="foot", type=cylinder, size=(0.022, 0.003, 0), pos=(0, 0, -0.002), mass=0.08, rgba=WHITE)

    def distractor_places(self) -> np.ndarray:
        top = TABLE + 0.03
        return np.array([[[0.66, 0.25, top], [0.74, 0.5, top]], [[0.66, -0.5, top], [0.74, -0.25, top]]])

    def randomise(self, model: mujoco.MjModel, data: mujoco.MjData, factors: Factors) -> Layout:
        count = self.cue_values
        sockets = np.stack([*PORTS[:count], DOCK]) + factors.uniform(-0.015, 0.015, (count + 1, 2))
        for name, place in zip(self.sockets(), sockets, strict=True):
            model.body(name).pos[:2] = place
        return {
            "sockets": sockets,
            "plug": PLACES[:count] + factors.uniform(-0.02, 0.02, (count, 2)),
            "start": factors.uniform(-0.015, 0.015, (2, 3)),
        }

    def apply_cue(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, cue: int) -> None:
        angles = arc_angles(layout["plug"][cue] - ANCHOR)
        for number, angle in enumerate(angles):
            data.joint(f"cable_{number}").qpos[:] = np.cos(angle / 2), 0, 0, np.sin(angle / 2)
        data.joint("plug").qpos[:] = 1, 0, 0, 0

    def script(self, layout: Layout, cue: int) -> Script:
        opened, closed = FINGER_OPEN, 0.0
        origin, dock, port, side = layout["plug"][cue], layout["sockets"][-1], layout["sockets"][cue], cue % 2
        low, high = TABLE + 0.045, TABLE + 0.12
        homes = [np.array([0.30, 0.28, 0.66]), np.array([0.30, -0.28, 0.66])]
        tracks = [Track(np.array([*(home + layout["start"][i]), opened])) for i, home in enumerate(homes)]
        hand, other = tracks[side], tracks[1 - side]
        hand.to(20, *origin, high + 0.04, opened).to(34, *origin, low, opened).to(37, *origin, low, closed)
        hand.through(46, *origin, high, closed).to(62, *dock, high, closed)
        hand.to(70, *dock, low + 0.002, closed).to(72, *dock, low + 0.002, opened)
        hand.to(80, *dock, high + 0.04, opened).to(94, *homes[side], opened)
        other.to(50, *homes[1 - side], opened).hold(94)
        for number, track in enumerate(tracks):  # the shared segment: both hands wander alike for both cues
            sign = 1 - 2 * number
            track.to(140, 0.27, sign * 0.30, 0.74, opened).to(190, 0.32, sign * 0.27, 0.66, opened)
            track.to(254, 0.30, sign * 0.28, 0.68, opened)
        hand.to(266, *dock, high, opened).to(274, *dock, low, opened).to(277, *dock, low, closed)
        hand.through(286, *dock, high, closed).to(300, *port, high - 0.02, closed)
        hand.to(307, *port, low + 0.004, closed).to(309, *port, low + 0.004, opened).to(320, *port, high + 0.04, opened)
        # Pushes go on between grasps and releases: the way back must be in the demonstrations.
        calm = ((25, 40), (60, 76), (264, 280), (297, 312))
        return Script(tracks[0], tracks[1], Track(np.zeros(3)), (DOWN, DOWN), 94, 254, calm)

    def check(self, model: mujoco.MjModel, data: mujoco.MjData, layout: Layout, progress: Progress) -> None:
        plug = data.geom("plug").xpos
        upright = data.geom("plug").xmat[8] > 0.9
        in_hand = held(model, data, "plug")
        inside = np.abs(plug[:2] - layout["sockets"]).max(axis=1) < SOCKET_HALF
        down = plug[2] < TABLE + PLUG_HALF + 0.015 and upright
        progress.reach("plug_taken", bool(plug[2] > TABLE + PLUG_HALF + 0.04))
        progress.reach("plug_docked", bool(inside[-1] and down and not in_hand))
        home = min(abs(data.site(f"{side}_grip").xpos[1]) for side in ("left", "right")) > 0.22
        progress.cue_seen = True
        progress.at_branch = progress.at_branch or (progress.cue_over and not home)
        progress.cue_over = progress.cue_over or bool(progress.stage >= 2 and home)
        distance = np.linalg.norm(plug[:2] - layout["sockets"][:-1], axis=1)
        if progress.stage >= 2 and in_hand and progress.choice < 0 and distance.min() < 2 * SOCKET_HALF:
            progress.choice = int(distance.argmin())
        progress.reach("port_reached", bool(progress.choice == progress.cue and inside[progress.cue]))
        progress.reach("plugged", bool(inside[progress.cue] and down and not in_hand))
        hands = [data.site(f"{side}_grip").xpos for side in ("left", "right")]
        away = min(np.linalg.norm(hand - plug) for hand in hands) > 0.08
        progress.over = bool((inside[:-1].any() and down and not in_hand and away) or plug[2] < TABLE - 0.05)
