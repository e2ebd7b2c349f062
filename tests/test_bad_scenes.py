"""Scenes and meshes that cannot be simulated are named."""

from dataclasses import replace

import numpy as np
import pytest
from test_sims import model, pair

from sims import scenes
from sims.dataset import FRAME
from sims.eqcollide.encoder import control_of
from sims.flex import FlexSimulator
from sims.model import LearnedSimulator
from sims.scenes import SceneSettings, random_scene
from sims.shapes import Mesh, make_mesh
from sims.state import Body, Pusher, Scene, Wall


def bar(turned: float) -> Body:
    """A long thin rectangle of two triangles."""
    mesh = make_mesh(
        np.array([[-0.2, -0.02], [0.2, -0.02], [0.2, 0.02], [-0.2, 0.02]]), np.array([[0, 1, 2], [0, 2, 3]])
    )
    cos, sin = np.cos(turned), np.sin(turned)
    return Body(mesh, np.zeros(2), np.array([[cos, -sin], [sin, cos]]), np.zeros(2), np.zeros(1))


def crossed_bars() -> Scene:
    """No point of one is in the other."""
    return Scene((bar(0.0), bar(np.pi / 2)))


def many(body: Body, count: int) -> tuple[Body, ...]:
    return tuple(replace(body, position=np.array([float(number), 0.0])) for number in range(count))


def test_surfaces_that_slide_past_each_other_are_as_near_as_they_are():
    """Whatever their points do: two boxes 1 mm apart, shifted by half a spacing, overlap; 7 mm apart they do not."""
    low = bar(0.0)
    for apart, fits in ((0.001, False), (0.007, True)):
        scene = Scene((low, replace(low, position=np.array([0.13, 0.04 + apart]))))
        assert scene.gap(scene.start(), 0, 1) == pytest.approx(apart)
        if fits:
            scene.check()
        else:
            with pytest.raises(ValueError, match=r"overlap: 0.0010 m apart"):
                scene.check()


def inverted(mesh: Mesh) -> Mesh:
    """The same with the first element's corners the other way round."""
    elements = mesh.elements.copy()
    elements[0, :2] = elements[0, 1::-1]
    return Mesh(mesh.points, elements)


def test_bad_scenes_and_meshes(monkeypatch):
    monkeypatch.setattr(scenes, "TRIES", 1)
    scene = pair(2)
    one, two = scene.bodies
    with_a_point_more = np.concatenate([one.mesh.points, [[0.0, 0.0]]])
    for bad, message in (
        (replace(scene, bodies=()), "no body"),
        (replace(scene, bodies=(one, replace(two, position=one.position))), "bodies 0 and 1 overlap"),
        (replace(scene, gravity=np.zeros(3)), "has 2 dimensions, gravity has 3"),
        (replace(scene, bodies=(replace(one, velocity=np.array([np.nan, 0])),)), "finite"),
        (replace(scene, bodies=(replace(one, young=0.0),)), "young must be finite and > 0, got 0.0"),
        (replace(scene, walls=(Wall(np.array([1.0, 0.0]), 0.0),)), "body 0 is .* inside a wall"),
        (replace(scene, pushers=(Pusher(0.02, one.position, np.zeros(2)),)), "bodies 0 and 2 overlap: -"),
        (replace(scene, bodies=(replace(one, young=np.nan),)), "finite and > 0, got nan"),
        (replace(scene, bodies=(replace(one, orientation=np.diag([1.0, -1.0])),)), "must be a rotation matrix"),
        (replace(scene, walls=(Wall(np.array([2.0, 0.0]), -9.0),)), "the normal must have length 1"),
        (replace(scene, gravity=np.array([0.0, np.inf])), "gravity must be finite"),
        (replace(scene, drag=-2.0), "drag >= 0"),
        (crossed_bars(), "bodies 0 and 1 overlap: -"),
        (replace(scene, bodies=(replace(one, mesh=inverted(one.mesh)),)), "body 0: element 0 .* is inverted"),
        (replace(scene, bodies=(replace(one, spin=np.zeros(3)),)), r"body 0: spin must have shape \(1,\), got \(3,\)"),
        (replace(scene, bodies=(replace(one, position=np.zeros(3)),)), r"position must have shape \(2,\)"),
        (replace(scene, pushers=(Pusher(0.0, -one.position, np.zeros(2)),)), "radius must be finite and > 0, got 0"),
        (
            replace(scene, pushers=(Pusher(0.02, np.ones(3), np.zeros(3)),)),
            r"pusher 0: position must have shape \(2,\)",
        ),
        (replace(scene, walls=(Wall(np.array([0.0, 0.0, 1.0]), -9.0),)), r"wall 0: normal must have shape \(2,\)"),
        (replace(scene, bodies=many(one, 60)), "points, at most 5000 fit"),
        (replace(scene, bodies=(replace(one, mesh=Mesh(np.zeros((1, 2)), np.zeros((0, 3), int))),)), "more than dim"),
        (replace(scene, bodies=(replace(one, mesh=Mesh(one.mesh.points + 1, one.mesh.elements)),)), "centre of mass"),
        (replace(scene, bodies=(replace(one, mesh=Mesh(with_a_point_more, one.mesh.elements)),)), "to no element"),
        (replace(scene, bodies=(replace(one, mesh=Mesh(one.mesh.points[:9], one.mesh.elements)),)), "points 0..8, got"),
    ):
        for simulator in (FlexSimulator(), LearnedSimulator(model(2))):
            with pytest.raises(ValueError, match=message):
                simulator.reset(bad)
    for simulator in (FlexSimulator(), LearnedSimulator(model(2))):
        with pytest.raises(ValueError, match="has no scene yet"):
            simulator.step(scene.start(), FRAME)
        start = simulator.reset(scene)
        for dt in (0.0, -FRAME, np.nan, np.inf):
            with pytest.raises(ValueError, match="dt must be finite and > 0 s"):
                simulator.step(start, dt)
        with pytest.raises(ValueError, match="step states of the scene that the simulator was reset with"):
            simulator.step(replace(scene, bodies=(one,)).start(), FRAME)
        start.positions[3] = np.nan
        with pytest.raises(ValueError, match=r"1 of \d+ points have a position or velocity that is not finite"):
            simulator.step(start, FRAME)
    with pytest.raises(ValueError, match="needs more than dim points"):
        make_mesh(np.zeros((1, 2)), np.zeros((0, 3), int))
    with pytest.raises(ValueError, match="element 0 of the body is inverted or degenerate"):
        make_mesh(np.array([[0, 0], [1, 0], [2, 1e-4]]), np.array([[0, 1, 2]]))
    for flat in (np.array([[0, 0], [1, 0], [2, 0]]), np.eye(4, 3) * (1, 1, 0)):
        with pytest.raises(ValueError, match="element 0 of the body is inverted or degenerate: quality 0"):
            make_mesh(flat, np.arange(len(flat))[None])
    with pytest.raises(ValueError, match=r"over points 0..2, got 0..3"):
        make_mesh(np.array([[0, 0], [1, 0], [0, 1]]), np.array([[0, 1, 3]]))
    square, fan = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]]), [[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4]]
    make_mesh(square, np.array(fan))
    with pytest.raises(ValueError, match="lies over its neighbour"):  # the middle is pulled out over an edge
        make_mesh(np.array([*square[:4], [1.4, 0.5]]), np.array(fan))
    with pytest.raises(ValueError, match="60 bodies do not fit"):
        random_scene(SceneSettings(2, bodies=(60, 60)), 0)
    for bad, message in (
        ({"young": (8e4, 4e4)}, r"young must be \(least, most\)"),
        ({"speed": -1.0}, "speed must be finite and >= 0, got -1"),
        ({"speed": np.nan}, "speed must be finite"),
        ({"spacing": -1.0}, "spacing must be finite and >= 0, got -1"),
        ({"spacing": 1e-4}, "points at least, at most 5000 fit"),
    ):
        with pytest.raises(ValueError, match=message):
            random_scene(SceneSettings(2, **bad), 0)
    with pytest.raises(ValueError, match="unknown shape 'cube'; choose of disc"):
        random_scene(SceneSettings(2, kinds=("cube",)), 0)
    with pytest.raises(ValueError, match="this model is of 3 dimensions, the scene has 2"):
        LearnedSimulator(model(3)).reset(scene)
    with pytest.raises(ValueError, match="has 9 points, but 16 control points"):
        control_of(np.random.default_rng(0).normal(size=(9, 2)), np.ones(9), np.array([[0, 1]]), 16)
