"""Simulators by name, and files of trained ones."""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .baselines.egnn import EGNN, SEGNO
from .baselines.gns import GNS
from .baselines.meshgraphnets import MeshGraphNets
from .baselines.rigid import Ballistic, ConstantVelocity
from .baselines.twin import FirstOrder, Twin
from .eqcollide.model import EqCollide
from .model import LearnedModel, LearnedSimulator, Range

MODELS: dict[str, Callable[..., LearnedModel]] = {
    "eqcollide": EqCollide,
    "twin": Twin,
    "first_order": FirstOrder,
    "gns": GNS,
    "meshgraphnets": MeshGraphNets,
    "egnn": EGNN,
    "segno": SEGNO,
    "constant_velocity": ConstantVelocity,
    "ballistic": Ballistic,
}
FORMAT = 3  # raised whenever old files can no longer be read


@dataclass(frozen=True)
class Recipe:
    """Which model, for how many dimensions, with which constructor arguments."""

    name: str
    dim: int
    options: dict[str, Any]

    def build(self) -> LearnedModel:
        """A model with fresh weights.

        Raises:
            ValueError: unknown name, or arguments that the model refuses.
        """
        if self.name not in MODELS:
            raise ValueError(f"unknown simulator {self.name!r}; choose of {', '.join(MODELS)}")
        return MODELS[self.name](self.dim, **self.options)


def save(path: Path, recipe: Recipe, model: LearnedModel, seen: Range) -> None:
    """Write a trained model and what range its training data had, atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    weights = {name: value.cpu() for name, value in model.state_dict().items()}
    torch.save({"simulator": FORMAT, "recipe": asdict(recipe), "seen": asdict(seen), "weights": weights}, temporary)
    temporary.replace(path)


def load(path: Path) -> LearnedModel:
    """The model of a file, in evaluation mode. Raises ValueError as `load_simulator`."""
    return _read(path)[0].eval()


def load_simulator(path: Path) -> LearnedSimulator:
    """The model of a file behind the simulator's contract; it knows the range of its training data.

    Raises:
        ValueError: no such file, or not one of a simulator of this version, or one whose steps want earlier frames.
    """
    return LearnedSimulator(*_read(path))


def _read(path: Path) -> tuple[LearnedModel, Range]:
    if not path.is_file():
        raise ValueError(f"no simulator at {path}; train one: python train.py sim=eqcollide env=soft_bodies_2d")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        found = content["simulator"]
    except Exception as error:  # torch raises many types for damaged files
        raise ValueError(f"{path} is damaged or not a simulator ({type(error).__name__})") from error
    if found != FORMAT:
        raise ValueError(f"{path} has format {found}, this version reads {FORMAT}; train it again")
    try:
        model = Recipe(**content["recipe"]).build()
        model.load_state_dict(content["weights"])
        return model, Range(**content["seen"])
    except (KeyError, TypeError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{path} does not fit this version ({reason}); train it again") from error
