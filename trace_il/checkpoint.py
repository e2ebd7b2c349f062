"""Checkpoints: written atomically, loaded without pickle, refused when they are of another version."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from . import __version__
from .agent import Agent, AgentSpec
from .encoders import Encoder
from .errors import UserError
from .files import replacing
from .memory.recall import RecallHead

FORMAT = 4  # raised whenever old checkpoints can no longer be read
PRETRAINED = "pretrained.pt"  # in a run folder: what views have taught the encoder before all else


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames, so that a killed save leaves the old checkpoint."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        with replacing(Path(path)) as temporary:
            torch.save(checkpoint, temporary)


def describe(config: dict[str, Any], spec: AgentSpec | None = None) -> dict[str, Any]:
    """What a checkpoint says of itself, in plain containers. A simulator has no agent's spec."""
    about = {"format": FORMAT, "version": __version__, "config": config}
    return about | ({} if spec is None else {"spec": asdict(spec)})


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The whole checkpoint, tensors on the CPU.

    Raises:
        UserError: missing, damaged, or not of this version.
    """
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}; train first, or give the folder of a run")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for damaged files
        raise UserError(
            f"{path} is damaged or not a checkpoint ({(str(error).splitlines() or [type(error).__name__])[0][:80]})"
        ) from error
    about = checkpoint.get("trace_il")
    if about is None:
        raise UserError(f"{path} was not written by trace-il; give the checkpoint of a run")
    if about["format"] != FORMAT:
        raise UserError(
            f"{path} has checkpoint format {about['format']} (trace-il {about['version']}), this version reads "
            f"format {FORMAT}; train again or install trace-il {about['version']}"
        )
    return checkpoint


def warm_start(agent: Agent, path: Path) -> None:
    """Give `agent` the weights of another run's checkpoint, of the same task or of another one of the same robot.

    The limits of the actions and the statistics of states, actions and signatures stay: they are of what it will be
    trained on. What hardly moved in another task would move by hundreds of its standard deviations.

    Raises:
        UserError: no such checkpoint, or of an agent with other parts or connected to something else.
    """
    other = load_agent(path)
    mine, theirs = asdict(agent.spec), asdict(other.spec)
    differing = [key for key in mine if mine[key] != theirs[key] and key not in ("action_low", "action_high")]
    if differing:
        key = differing[0]
        raise UserError(f"trainer.init={path} is of an agent with {key}={theirs[key]}, this one has {mine[key]}")
    weights = agent.state_dict()
    kept = ("action_low", "action_high", "standardize_", "address.standardize_")
    weights |= {name: value for name, value in other.state_dict().items() if not name.startswith(kept)}
    try:
        agent.load_state_dict(weights)
    except RuntimeError as error:
        reason = next(line.strip() for line in str(error).splitlines()[1:])
        raise UserError(f"trainer.init={path} is of another agent ({reason}); use one configuration") from error


def load_trunk(path: Path, encoder: Encoder) -> None:
    """Give an encoder the trunk of a file of pretraining."""
    weights = read_checkpoint(path)["state_dict"]
    encoder.trunk.load_state_dict({k.removeprefix("trunk."): v for k, v in weights.items() if k.startswith("trunk.")})


def load_recall(path: Path, agent: Agent) -> RecallHead | None:
    """The recall head that the agent of a checkpoint was trained with, if it was."""
    weights = {
        k.removeprefix("recall."): v for k, v in read_checkpoint(path)["state_dict"].items() if k.startswith("recall.")
    }
    if not weights:
        return None
    memory = agent.memory
    head = RecallHead(memory.slots, memory.width, memory.address_dim, len(agent.spec.cameras))
    head.load_state_dict(weights)
    return head.eval()


def load_agent(path: Path) -> Agent:
    """The agent of a checkpoint, in evaluation mode: the averaged weights where there are any."""
    from .build import build_agent
    from .config import from_plain

    checkpoint = read_checkpoint(path)
    about = checkpoint["trace_il"]
    stored: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in about["spec"].items()}
    spec = AgentSpec(**stored)
    agent = build_agent(from_plain(about["config"]), spec)
    weights = {k.removeprefix("agent."): v for k, v in checkpoint["state_dict"].items() if k.startswith("agent.")}
    try:
        agent.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"{path} does not fit its own configuration ({str(error).splitlines()[0]}); train again"
        ) from error
    return agent.eval()
