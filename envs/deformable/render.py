"""Pictures of soft bodies in the plane: the same meshes, placed by a state, whatever simulator it comes from."""

from typing import Any

import mujoco
import numpy as np

from sims.shapes import Mesh

from ..base import new_renderer

VIEWS = {"overhead": 0.86, "wrist": 0.3}  # m, side of what the cameras see; that of the wrist goes with the finger
HEIGHT = 0.02  # m, at which bodies lie above the table
BODY = (0.55, 0.55, 0.58, 1)
FINGER, TABLE = (0.15, 0.15, 0.15, 1), (0.86, 0.84, 0.80, 1)


class PlaneRenderer:
    """Cameras above the table and above the finger.

    Args:
        mesh: of the soft body.
        finger_radius: m.
        marks: flat shapes on the table: dicts of name, type ("box", "cylinder"), size, pos (2,), rgba.
    """

    def __init__(self, mesh: Mesh, finger_radius: float, marks: list[dict[str, Any]]) -> None:
        text = " ".join(f"{x:.9g} {y:.9g} 0" for x, y in mesh.points)
        elements = " ".join(map(str, mesh.elements.ravel()))
        shapes = "".join(
            f'<body name="{m["name"]}" mocap="true" pos="{m["pos"][0]} {m["pos"][1]} 0.001"><geom name="{m["name"]}" '
            f'type="{m["type"]}" size="{" ".join(map(str, m["size"]))}" rgba="{" ".join(map(str, m["rgba"]))}" '
            'contype="0" conaffinity="0"/></body>'
            for m in marks
        )
        angle = {name: 2 * np.degrees(np.arctan(side / 2)) for name, side in VIEWS.items()}  # from a height of 1 m
        xml = f"""<mujoco>
          <visual><headlight ambient="0.5 0.5 0.5" diffuse="0.4 0.4 0.4" specular="0 0 0"/><quality shadowsize="0"/>
            <global offwidth="640" offheight="640"/></visual>
          <worldbody>
            <geom name="table" type="plane" size="2 2 0.1" rgba="{" ".join(map(str, TABLE))}"/>
            <camera name="overhead" pos="0 0 1" fovy="{angle["overhead"]:.4f}"/>
            <body name="finger" mocap="true"><camera name="wrist" pos="0 0 0.97" fovy="{angle["wrist"]:.4f}"/>
              <geom name="finger" type="cylinder" size="{finger_radius} 0.03"
              rgba="{" ".join(map(str, FINGER))}" contype="0" conaffinity="0"/></body>{shapes}
            <body name="soft"><flexcomp name="soft" type="direct" dim="2" mass="1" radius="0.001" rigid="true"
              rgba="{" ".join(map(str, BODY))}" point="{text}" element="{elements}">
              <contact contype="0" conaffinity="0"/></flexcomp></body>
          </worldbody></mujoco>"""
        self.model = mujoco.MjModel.from_xml_string(xml)
        self.data = mujoco.MjData(self.model)
        mujoco.mj_forward(self.model, self.data)
        self.renderers: dict[int, mujoco.Renderer] = {}

    def place(self, body: np.ndarray, finger: np.ndarray) -> None:
        """Show the points (P, 2) of the soft body and the finger at (2,)."""
        self.data.mocap_pos[self.model.body("finger").mocapid[0]] = *finger, 0.03
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        self.data.flexvert_xpos[:, :2], self.data.flexvert_xpos[:, 2] = body, HEIGHT

    def mark(self, name: str, pos: np.ndarray, angle: float = 0.0) -> None:
        """Put a mark somewhere else."""
        number = self.model.body(name).mocapid[0]
        self.data.mocap_pos[number] = *pos, 0.001
        self.data.mocap_quat[number] = np.cos(angle / 2), 0, 0, np.sin(angle / 2)

    def color(self, name: str, rgba: tuple[float, ...]) -> None:
        self.model.geom(name).rgba = rgba

    def picture(self, size: int, camera: str = "overhead") -> np.ndarray:
        """(size, size, 3) uint8.

        Raises:
            RenderingError: no offscreen OpenGL context can be made.
        """
        if size not in self.renderers:
            self.renderers[size] = new_renderer(self.model, size, size)
        renderer = self.renderers[size]
        renderer.update_scene(self.data, camera)
        return renderer.render()

    def close(self) -> None:
        for renderer in self.renderers.values():
            renderer.close()
        self.renderers.clear()
