"""Ground truth: MuJoCo flex, in 2D (plates that move in a plane) and in 3D, with checks of what comes out.

Elements are St. Venant-Kirchhoff, points carry lumped masses, contact is frictionless and compliant. Repeatable bit for
bit on a CPU. A step is a function of the state alone, but for the solver's warm start, which is cleared. Its length is
what the stiffest element of the scene allows: beyond that light points ring from step to step, with a velocity that
their places at the end of a frame do not show.
"""

import math

import mujoco
import numpy as np

from .shapes import Mesh, element_volumes
from .state import CONTACT_RADIUS, DENSITY, THICKNESS, Body, Scene, SimulationError, State, check_step

LONGEST = 5e-4  # s, a time step, for contact's sake
SAFETY = 0.8  # share of the stable time step that is used: bodies at rest are softer than stretched ones
POISSON, DAMPING = 0.3, 5e-4  # damping: s, a multiple of the stiffness
PUSHER_MASS = 1e4  # kg: nothing slows a pusher, whose velocity is given anew at each step


class FlexSimulator:
    """MuJoCo flex behind the simulator's contract.

    Raises:
        ValueError: the scene cannot be simulated, or as `check_step`.
        SimulationError: a step diverged or turned an element inside out; another state can still be stepped.
    """

    started: State | None = None

    def reset(self, scene: Scene) -> State:
        scene.check()
        state = self.started = scene.start()
        self.scene = scene
        self.timestep = min(LONGEST, *(SAFETY * stable_step(body) for body in scene.bodies))
        self.model = mujoco.MjModel.from_xml_string(scene_xml(scene))
        self.data = mujoco.MjData(self.model)
        soft = self.model.flex_vertbodyid
        self.model.body_mass[soft] = np.concatenate([body.masses for body in scene.bodies])
        self.model.dof_damping[: len(soft) * scene.dim] = scene.drag * np.repeat(self.model.body_mass[soft], scene.dim)
        mujoco.mj_setConst(self.model, self.data)
        self.origins = np.concatenate(
            [*(body.start_positions for body in scene.bodies), *(pusher.position[None] for pusher in scene.pushers)]
        )
        counts = [len(body.mesh.points) for body in scene.bodies]
        first = np.cumsum([0, *counts[:-1]])
        elements = zip((body.mesh.elements for body in scene.bodies), first, strict=True)
        self.elements = np.concatenate([own + start for own, start in elements])
        self.rest_volumes = np.concatenate([body.mesh.volumes for body in scene.bodies])
        self.soft = int(sum(counts))
        return state

    def step(self, state: State, dt: float) -> State:
        """One frame of `dt` s, in equal steps of at most `timestep`."""
        check_step(state, self.started, dt)
        data, dim = self.data, self.scene.dim
        for warning in data.warning:  # of a step before that diverged
            warning.number = 0
        count = max(1, math.ceil(dt / self.timestep))
        self.model.opt.timestep = dt / count
        positions, velocities = self._joints(state)
        pushers = slice(self.soft * dim, None)
        given = velocities.ravel()[pushers].copy()
        data.qpos[:] = (positions - self.origins).ravel()
        data.qvel[:] = velocities.ravel()
        data.qacc_warmstart[:] = 0
        start = data.qpos[pushers].copy()
        mujoco.set_mju_user_warning(lambda _: None)  # they are counted in `data` and read below, not written to a file
        for step in range(count):
            mujoco.mj_step(self.model, data)
            data.qpos[pushers] = start + given * (step + 1) * dt / count
            data.qvel[pushers] = given
        mujoco.set_mju_user_warning(None)
        self._check()
        return self._state(data.qpos.reshape(-1, dim) + self.origins, data.qvel.reshape(-1, dim), state)

    def _joints(self, state: State) -> tuple[np.ndarray, np.ndarray]:
        """Positions and velocities of soft points and pushers, each (J, dim)."""
        positions, velocities = [state.positions[: self.soft]], [state.velocities[: self.soft]]
        for number in range(len(self.scene.pushers)):
            own = state.body == len(self.scene.bodies) + number
            positions.append(state.positions[own].mean(0, keepdims=True))
            velocities.append(state.velocities[own].mean(0, keepdims=True))
        return np.concatenate(positions), np.concatenate(velocities)

    def _state(self, positions: np.ndarray, velocities: np.ndarray, before: State) -> State:
        parts, speeds = [positions[: self.soft]], [velocities[: self.soft]]
        for number, pusher in enumerate(self.scene.pushers):
            parts.append(positions[self.soft + number] + pusher.points)
            speeds.append(np.broadcast_to(velocities[self.soft + number], pusher.points.shape))
        return State(np.concatenate(parts), np.concatenate(speeds), before.body, before.kinematic)

    def _check(self) -> None:
        warned = [mujoco.mjtWarning(i).name for i, warning in enumerate(self.data.warning) if warning.number]
        if warned or not np.isfinite(self.data.qpos).all():
            raise SimulationError(
                f"the physics diverged ({', '.join(warned) or 'not finite'}); use stiffer or finer bodies"
            )
        points = self.data.qpos.reshape(-1, self.scene.dim)[: self.soft] + self.origins[: self.soft]
        ratio = element_volumes(points, self.elements) / self.rest_volumes
        if ratio.min() <= 0:
            raise SimulationError(f"element {int(ratio.argmin())} turned inside out; use stiffer bodies or slower ones")


def highest_frequencies(mesh: Mesh, young: float) -> np.ndarray:
    """Largest angular frequency of each element by itself at rest, (E,), rad/s.

    None of the body's is higher than the highest of these (Irons and Treharne 1971; Hughes, The Finite Element Method,
    9.1.4). Elements are linear and isotropic, in 2D under plane stress, with their mass at the corners.
    """
    dim, corners = mesh.dim, mesh.points[mesh.elements]
    slopes = np.linalg.inv(corners[:, 1:] - corners[:, :1])  # of the coordinates 1.. within an element, (E, dim, dim)
    slopes = np.concatenate([-slopes.sum(-1, keepdims=True), slopes], axis=-1)
    shears = [(0, 1)] if dim == 2 else [(0, 1), (0, 2), (1, 2)]
    strain = np.zeros((len(slopes), dim + len(shears), dim + 1, dim))  # by displacements of the corners
    for axis in range(dim):
        strain[:, axis, :, axis] = slopes[:, axis]
    for row, (one, two) in enumerate(shears, dim):
        strain[:, row, :, one], strain[:, row, :, two] = slopes[:, two], slopes[:, one]
    by_corner = strain.reshape(len(slopes), dim + len(shears), -1)
    shear = young / (2 * (1 + POISSON))
    stress = np.diag([2 * shear] * dim + [shear] * len(shears))
    stress[:dim, :dim] += young * POISSON / (1 - POISSON**2 if dim == 2 else (1 + POISSON) * (1 - 2 * POISSON))
    stiffness = np.einsum("eki,kl,elj->eij", by_corner, stress, by_corner)
    return np.sqrt((dim + 1) / DENSITY * np.linalg.eigvalsh(stiffness)[:, -1])


def stable_step(body: Body) -> float:
    """Longest time step, s, at which a body near rest does not ring: 2 (sqrt(1 + x^2) - x) / w with x = damping w / 2,
    for explicit steps and damping in proportion to the stiffness (Belytschko et al., Nonlinear Finite Elements, 6.2).
    """
    fastest = float(highest_frequencies(body.mesh, body.young).max())
    damped = DAMPING * fastest / 2
    return 2 * (math.sqrt(1 + damped**2) - damped) / fastest


def scene_xml(scene: Scene) -> str:
    """MJCF of a scene. Bodies are at their starting poses, where they are at rest."""
    dim, depth = scene.dim, THICKNESS if scene.dim == 2 else 0.0

    def vector(values: np.ndarray) -> str:
        full = np.zeros((*np.shape(values)[:-1], 3))
        full[..., :dim] = values
        return " ".join(f"{value:.12g}" for value in full.ravel())

    parts = []
    for number, body in enumerate(scene.bodies):
        flat = 'dof="2d"' if dim == 2 else 'dof="full"'
        elastic = f'thickness="{depth}" elastic2d="stretch"' if dim == 2 else ""
        parts.append(f"""
          <body name="body_{number}"><flexcomp name="body_{number}" type="direct" dim="{dim}" {flat} mass="1"
            radius="{CONTACT_RADIUS}" point="{vector(body.start_positions)}"
            element="{" ".join(map(str, body.mesh.elements.ravel()))}">
            <elasticity young="{body.young}" poisson="{POISSON}" damping="{DAMPING}" {elastic}/>
            <contact selfcollide="none" contype="1" conaffinity="3" condim="1" solref="0.004 1"/>
          </flexcomp></body>""")
    for pusher in scene.pushers:
        axes = "".join(f'<joint type="slide" axis="{axis}"/>' for axis in ("1 0 0", "0 1 0", "0 0 1")[:dim])
        parts.append(f"""
          <body pos="{vector(pusher.position)}" gravcomp="1">{axes}
            <geom type="sphere" size="{pusher.radius}" mass="{PUSHER_MASS}" contype="2" conaffinity="0" condim="1"
              solref="0.01 1"/></body>""")
    for wall in scene.walls:
        place = vector(wall.offset * wall.normal / (wall.normal @ wall.normal))
        parts.append(f'<geom type="plane" size="0 0 1" pos="{place}" zaxis="{vector(wall.normal)}" contype="2" '
                     'conaffinity="0" condim="1" solref="0.01 1"/>')  # fmt: skip
    return f"""<mujoco>
      <option timestep="{LONGEST}" integrator="Euler" cone="elliptic" gravity="{vector(scene.gravity)}"/>
      <size memory="500M"/>
      <worldbody>{"".join(parts)}</worldbody></mujoco>"""
