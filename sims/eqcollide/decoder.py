"""The field that control points carry: positions and velocities at any point of a body, at any resolution.

    w_i(X)   = softmax_i( -|X - X_i|^2 / 2 s^2 )                                                    window at rest
    A_i      = [ sum_j v_ij (p_j - p_i)(X_j - X_i)^T ] S_i^-1,   S_i = sum_j v_ij (X_j - X_i)(X_j - X_i)^T
    x(X)     = sum_i w_i(X) [ p_i + A_i (X - X_i) ]  =  sum_j G_j(X) p_j                   moving least squares
    u(X)     = sum_j G_j(X) v_j

with v_ij a wider Gaussian window. x is linear in the control points, sum_j G_j(X) = 1, and every affine motion of the
body is given exactly. So the field commutes with all rotations, reflections and shifts, a force f at X is the forces
G_j(X) f on the control points (virtual work), and the momentum of the field is that of the control points when their
masses are sum_X m(X) G_j(X). G depends on the rest shape alone and is computed once for each scene.
"""

import numpy as np

WINDOW, GRADIENT_WINDOW = 0.5, 1.2  # s and the width of v_ij, in distances between neighbouring control points


def interpolation(points: np.ndarray, control: np.ndarray) -> np.ndarray:
    """G, (P, K): the linear map from control points to points, both given at rest, (P, dim) and (K, dim).

    Raises:
        ValueError: the control points lie on a line (in 3D: on a plane).
    """
    offsets = control[:, None] - control  # (i, j): X_i - X_j
    distance = np.linalg.norm(offsets, axis=-1)
    spacing = np.sort(distance, axis=1)[:, 1:3].mean()
    exponent = -((points[:, None] - control) ** 2).sum(-1) / (2 * (WINDOW * spacing) ** 2)
    window = np.exp(exponent - exponent.max(1, keepdims=True))
    window /= window.sum(1, keepdims=True)
    near = np.exp(-(distance**2) / (2 * (GRADIENT_WINDOW * spacing) ** 2))
    moments = np.einsum("ij,ijd,ije->ide", near, offsets, offsets)
    if np.linalg.cond(moments).max() > 1e8:
        raise ValueError("the control points of a body lie on a line or a plane; its shape is too thin")
    inverse = np.linalg.inv(moments)
    # share[p, i, j] of p_j - p_i in the position that control point i gives to point p
    share = np.einsum("pid,ide,ij,ije->pij", points[:, None] - control, inverse, near, -offsets)
    return np.einsum("pi,pij->pj", window, share) + window * (1 - share.sum(-1))


def farthest_points(points: np.ndarray, count: int) -> np.ndarray:
    """Indices (count,) of farthest-point sampling of (P, dim), begun at the point farthest from the mean.

    Raises:
        ValueError: fewer points than asked for.
    """
    if len(points) < count:
        raise ValueError(f"a body has {len(points)} points, but {count} control points are asked for; mesh it finer")
    chosen = [int(((points - points.mean(0)) ** 2).sum(-1).argmax())]
    distance = ((points - points[chosen[0]]) ** 2).sum(-1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(-1))
    return np.array(chosen)
