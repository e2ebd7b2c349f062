"""A bimanual mobile manipulator, built in code: planar base, two arms of 6 joints, parallel grippers.

State and action have 17 channels in one order (TRACE section 6): vx, vy, yaw rate of the base in its own
frame (m/s, m/s, rad/s); left 6 joints (rad) and gripper (m, opening of each finger); right 6 joints and
gripper. Actions are targets of real servos in the same units: velocities for the base, positions for
the rest.
"""

import math

import mujoco
import numpy as np

SIDES = ("left", "right")
ARM_JOINTS = ("waist", "shoulder", "elbow", "forearm_roll", "wrist_pitch", "wrist_roll")
BASE_CHANNELS = ("base_vx", "base_vy", "base_yaw_rate")
CHANNELS = BASE_CHANNELS + tuple(f"{side}_{joint}" for side in SIDES for joint in (*ARM_JOINTS, "gripper"))
UNITS = ("m/s", "m/s", "rad/s") + 2 * ("rad", "rad", "rad", "rad", "rad", "rad", "m")
CAMERAS = ("overhead", "left_wrist", "right_wrist")

SHOULDER_HEIGHT, SHOULDER_SIDE = 0.70, 0.18  # m
UPPER_ARM, FOREARM, HAND = 0.32, 0.32, 0.14  # m; HAND is wrist to grip centre
FINGER_OPEN = 0.04  # m, largest opening of each finger
BASE_SPEED, BASE_YAW_SPEED = 1.0, 1.5  # m/s, rad/s
JOINT_RANGES = ((-1.8, 1.8), (-1.9, 1.5), (-0.1, 2.6), (-2.0, 2.0), (-1.9, 1.9), (-2.5, 2.5))  # rad
JOINT_AXES = ((0, 0, 1), (0, 1, 0), (0, 1, 0), (1, 0, 0), (0, 1, 0), (1, 0, 0))
DARK, LIGHT, JOINT_COLOR = (0.15, 0.15, 0.17, 1), (0.82, 0.83, 0.85, 1), (0.95, 0.6, 0.15, 1)

ACTION_LOW = np.array(
    [-BASE_SPEED, -BASE_SPEED, -BASE_YAW_SPEED] + 2 * ([low for low, _ in JOINT_RANGES] + [0.0]), dtype=np.float32
)
ACTION_HIGH = np.array(
    [BASE_SPEED, BASE_SPEED, BASE_YAW_SPEED] + 2 * ([high for _, high in JOINT_RANGES] + [FINGER_OPEN]),
    dtype=np.float32,
)
# Elbows out and up, grippers pointing down in front of the shoulders.
HOME = np.array([0.0, -0.75, 1.75, 0.0, 0.57, 0.0])


def camera_axes(forward: tuple[float, float, float]) -> list[float]:
    """MuJoCo `xyaxes` of a camera that looks along `forward` with its picture upright."""
    z = -np.asarray(forward, dtype=float) / np.linalg.norm(forward)
    x = np.cross((0, 0, 1), z)
    x /= np.linalg.norm(x)
    return [*x, *np.cross(z, x)]


def add_robot(spec: mujoco.MjSpec, mobile: bool) -> None:
    """Add the robot at the origin, facing +x. A fixed robot has no base joints."""
    spec.compiler.degree = False
    base = spec.worldbody.add_body(name="base", gravcomp=1)
    if mobile:
        slide, hinge = mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE
        for name, kind, axis in (
            ("base_x", slide, (1, 0, 0)),
            ("base_y", slide, (0, 1, 0)),
            ("base_yaw", hinge, (0, 0, 1)),
        ):
            base.add_joint(name=name, type=kind, axis=axis, armature=1.0)
            _add_servo(spec, name, "velocity")
    box, cylinder = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER
    base.add_geom(name="chassis", type=cylinder, size=(0.17, 0.08, 0), pos=(-0.08, 0, 0.1), rgba=DARK, mass=30)
    base.add_geom(name="column", type=box, size=(0.05, 0.09, 0.28), pos=(-0.08, 0, 0.42), rgba=LIGHT, mass=5)
    base.add_geom(
        name="shoulders", type=box, size=(0.05, 0.2, 0.04), pos=(-0.07, 0, SHOULDER_HEIGHT), rgba=LIGHT, mass=2
    )
    base.add_geom(name="mast", type=cylinder, size=(0.015, 0.4, 0), pos=(-0.14, 0, 1.1), rgba=DARK, mass=1)
    base.add_camera(name="overhead", pos=(-0.1, 0, 1.5), xyaxes=camera_axes((0.5, 0, -1.0)), fovy=58)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        _add_arm(spec, base, side, sign)


def _add_servo(spec: mujoco.MjSpec, joint: str, kind: str) -> None:
    actuator = spec.add_actuator(name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    if kind == "velocity":
        actuator.set_to_velocity(kv=400)
    elif kind == "gripper":
        actuator.set_to_position(kp=600, kv=30)
        actuator.forcerange = (-15, 15)
    else:
        actuator.set_to_position(kp=250, kv=22)
        actuator.forcerange = (-80, 80)


def _add_arm(spec: mujoco.MjSpec, base: mujoco.MjsBody, side: str, sign: float) -> None:
    capsule, box, hinge = mujoco.mjtGeom.mjGEOM_CAPSULE, mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtJoint.mjJNT_HINGE
    body = base
    offsets = (
        (0, sign * SHOULDER_SIDE, SHOULDER_HEIGHT),
        (0, 0, 0),
        (UPPER_ARM, 0, 0),
        (0, 0, 0),
        (FOREARM, 0, 0),
        (0, 0, 0),
    )
    for joint, offset, axis, limits in zip(ARM_JOINTS, offsets, JOINT_AXES, JOINT_RANGES, strict=True):
        name = f"{side}_{joint}"
        body = body.add_body(name=name, pos=offset, gravcomp=1)
        body.add_joint(name=name, type=hinge, axis=axis, range=limits, armature=0.05, damping=0.5)
        _add_servo(spec, name, "position")
        # Arm links do not collide with anything: only hands and fingers touch the world.
        visual = {"contype": 0, "conaffinity": 0}
        if joint == "waist":
            body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(0.05, 0, 0), rgba=JOINT_COLOR, mass=0.5, **visual)
        elif joint == "shoulder":
            body.add_geom(
                type=capsule, size=(0.035, 0, 0), fromto=(0, 0, 0, UPPER_ARM, 0, 0), rgba=LIGHT, mass=1, **visual
            )
        elif joint == "forearm_roll":
            body.add_geom(
                type=capsule, size=(0.03, 0, 0), fromto=(0, 0, 0, FOREARM, 0, 0), rgba=LIGHT, mass=0.7, **visual
            )
        else:
            body.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=(0.035, 0, 0), rgba=JOINT_COLOR, mass=0.1, **visual)
    hand = body
    hand.add_geom(type=box, size=(0.02, 0.05, 0.02), pos=(0.07, 0, 0), rgba=DARK, mass=0.3, contype=0, conaffinity=0)
    hand.add_site(name=f"{side}_grip", pos=(HAND, 0, 0), size=(0.005, 0, 0))
    tilt = math.radians(28)  # towards the fingers
    hand.add_camera(
        name=f"{side}_wrist",
        pos=(0.05, 0, 0.075),
        xyaxes=(0, -1, 0, math.sin(tilt), 0, math.cos(tilt)),
        fovy=85,
    )
    for finger, direction in (("a", 1.0), ("b", -1.0)):
        name = f"{side}_finger_{finger}"
        part = hand.add_body(name=name, pos=(HAND - 0.03, direction * 0.006, 0), gravcomp=1)
        part.add_joint(
            name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(0, direction, 0), range=(0, FINGER_OPEN), armature=0.05
        )
        part.add_geom(
            type=box,
            size=(0.04, 0.006, 0.02),
            pos=(0.01, 0, 0),
            rgba=DARK,
            mass=0.05,
            friction=(1.5, 0.02, 0.001),
            condim=4,
        )
        _add_servo(spec, name, "gripper")


class RobotIndex:
    """Where the robot's channels are in a compiled model."""

    def __init__(self, model: mujoco.MjModel, mobile: bool) -> None:
        self.mobile = mobile
        self.base_qpos = np.array(
            [model.joint(n).qposadr[0] for n in ("base_x", "base_y", "base_yaw")] if mobile else [], int
        )
        self.base_qvel = np.array(
            [model.joint(n).dofadr[0] for n in ("base_x", "base_y", "base_yaw")] if mobile else [], int
        )
        self.base_ctrl = np.array(
            [model.actuator(n).id for n in ("base_x", "base_y", "base_yaw")] if mobile else [], int
        )
        arms = [f"{side}_{joint}" for side in SIDES for joint in ARM_JOINTS]
        fingers = [f"{side}_finger_{finger}" for side in SIDES for finger in ("a", "b")]
        self.arm_qpos = np.array([model.joint(n).qposadr[0] for n in arms]).reshape(2, 6)
        self.arm_ctrl = np.array([model.actuator(n).id for n in arms]).reshape(2, 6)
        self.finger_qpos = np.array([model.joint(n).qposadr[0] for n in fingers]).reshape(2, 2)
        self.finger_ctrl = np.array([model.actuator(n).id for n in fingers]).reshape(2, 2)

    def base_pose(self, data: mujoco.MjData) -> np.ndarray:
        """x, y, yaw in the world."""
        return data.qpos[self.base_qpos].copy() if self.mobile else np.zeros(3)

    def state(self, data: mujoco.MjData) -> np.ndarray:
        """The 17 state channels, float32."""
        out = np.zeros(17)
        if self.mobile:
            vx, vy, rate = data.qvel[self.base_qvel]
            yaw = data.qpos[self.base_qpos[2]]
            cos, sin = math.cos(yaw), math.sin(yaw)
            out[:3] = cos * vx + sin * vy, -sin * vx + cos * vy, rate
        for side in (0, 1):
            start = 3 + 7 * side
            out[start : start + 6] = data.qpos[self.arm_qpos[side]]
            out[start + 6] = data.qpos[self.finger_qpos[side]].mean()
        return out.astype(np.float32)

    def command(self, data: mujoco.MjData, action: np.ndarray) -> None:
        """Send 17 action channels to the servos; base velocities are turned into the world frame."""
        if self.mobile:
            yaw = data.qpos[self.base_qpos[2]]
            cos, sin = math.cos(yaw), math.sin(yaw)
            vx, vy = action[:2]
            data.ctrl[self.base_ctrl] = cos * vx - sin * vy, sin * vx + cos * vy, action[2]
        for side in (0, 1):
            start = 3 + 7 * side
            data.ctrl[self.arm_ctrl[side]] = action[start : start + 6]
            data.ctrl[self.finger_ctrl[side]] = action[start + 6]

    def place(self, data: mujoco.MjData, base: np.ndarray, arms: np.ndarray, gripper: float) -> None:
        """Put base (x, y, yaw; ignored where it is fixed), both arms (2, 6) and grippers at rest there."""
        if self.mobile:
            data.qpos[self.base_qpos] = base
        for side in (0, 1):
            data.qpos[self.arm_qpos[side]] = data.ctrl[self.arm_ctrl[side]] = arms[side]
            data.qpos[self.finger_qpos[side]] = data.ctrl[self.finger_ctrl[side]] = gripper
