"""The field of control points: anywhere in a body, and gradients through it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_sims import model, pair

from sims.dataset import simulate
from sims.model import predict


def test_a_start_can_be_fitted_by_gradient_through_a_rollout():
    trajectory = simulate(pair(2, gap=0.012), 10)
    network = model(2)
    batch = network.statics([trajectory])
    window = network.window([trajectory], [0], 10)
    p, v, pushers = window.positions[0], window.velocities[0], (window.place, window.speeds)
    target = network.rollout(p, v, batch, pushers, 10)[0][-1].detach()
    guess = torch.zeros(1, 2, 1, 2, dtype=torch.float64, requires_grad=True)
    truth = v.mean(2, keepdim=True)
    optimiser = torch.optim.LBFGS([guess], max_iter=20, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        end = network.rollout(p, v - truth + guess, batch, pushers, 10)[0][-1]
        loss = 1e4 * (end - target).square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    assert (guess - truth).abs().max() < 1e-3


def test_a_stiffness_can_be_fitted_by_gradient_from_points_anywhere():
    trajectory, network = simulate(pair(2, gap=0.012), 30), model(2)
    window = network.window([trajectory], [0], 30)
    pushers, statics = (window.place, window.speeds), network.statics([trajectory])
    mesh = trajectory.rest[trajectory.elements[:40]].mean(1)  # middles of elements: no points of the mesh

    def end(young: torch.Tensor) -> torch.Tensor:
        scene = replace(statics, young=statics.young * young)
        latent = network.rollout(window.positions[0], window.velocities[0], scene, pushers, 30)[0]
        return network.query(trajectory, 0, mesh, latent[-1, 0])

    target = end(torch.tensor(2.0, dtype=torch.float64)).detach()
    guess = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([guess], max_iter=20, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = 1e8 * (end(guess.exp()) - target).square().mean()
        loss.backward()
        return loss

    assert closure() > 1e-3
    optimiser.step(closure)
    assert guess.exp().item() == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize("dim", [2, 3])
def test_the_field_is_one_at_every_resolution(dim):
    trajectory, network = simulate(pair(dim, gap=0.012), 10), model(dim)
    result = predict(network, [trajectory], 10)[0]
    own, latent = trajectory.body == 0, torch.from_numpy(result.latent)
    at_points = network.query(trajectory, 0, trajectory.rest[own], latent)
    np.testing.assert_allclose(at_points, result.positions[:, own], atol=1e-6)
    corners = trajectory.elements[np.isin(trajectory.elements[:, 0], np.flatnonzero(own))]
    middles = network.query(trajectory, 0, trajectory.rest[corners].mean(1), latent)
    sizes = np.linalg.norm(trajectory.rest[corners[:, 0]] - trajectory.rest[corners[:, 1]], axis=1)
    apart = np.linalg.norm(middles.numpy() - result.positions[:, corners].mean(2), axis=-1)
    assert (apart < 0.2 * sizes).all()  # between the points of the mesh it goes as they do
    for bad, message in (((2, trajectory.rest[own]), "body must be in 0..1"), ((0, np.zeros((3, 5))), "of shape")):
        with pytest.raises(ValueError, match=message):
            network.query(trajectory, *bad, latent)
