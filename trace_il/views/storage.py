"""Files of a run of view planning: agents and records. Each is whole or not there."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..config import to_plain
from ..errors import UserError
from ..files import atomic_write, replacing
from .agent import ViewAgent
from .config import ViewRunConfig
from .distill import Record

FORMAT = 5  # of agents and records; raised whenever old files can no longer be read


def save_agent(path: Path, agent: ViewAgent, config: ViewRunConfig) -> None:
    """Weights and what they are of, atomically."""
    weights = {name: value.cpu() for name, value in agent.state_dict().items()}
    with replacing(path) as temporary:
        torch.save({"view_agent": FORMAT, "config": to_plain(config), "weights": weights}, temporary)


def load_weights(path: Path, agent: ViewAgent) -> ViewAgent:
    """The agent with the weights of a file of an agent like it.

    Raises:
        UserError: no such file, or not one of such an agent.
    """
    if not path.is_file():
        raise UserError(f"no agent at {path}; train one: python train.py env=view_planning view=graph_distillation")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["view_agent"] != FORMAT:
            raise UserError(f"{path} has format {content['view_agent']}, this version reads {FORMAT}; train it again")
        stored = content["config"]
        for key, theirs, own in (
            ("env.image_size", stored["env"]["image_size"], agent.image_size),
            ("view.pose", stored["view"]["pose"], agent.uses_pose),
        ):
            if theirs != own:
                raise UserError(f"{path} is an agent with {key}={theirs}, not {own}; give the same, or another file")
        agent.load_state_dict(content["weights"])
    except UserError:
        raise
    except Exception as error:  # torch raises many types for damaged files
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(f"{path} is damaged or not the agent of this configuration ({reason})") from error
    return agent


def make_agent(config: ViewRunConfig) -> ViewAgent:
    """With fresh seeded weights."""
    torch.manual_seed(config.seed)
    return ViewAgent(config.env.image_size, pose=config.view.pose, revisit=config.view.revisit)


def save_records(path: Path, records: Sequence[Record]) -> None:
    """Write records."""
    content = {"format": FORMAT, "records": [asdict(record) for record in records]}
    atomic_write(path, json.dumps(content).encode())


def load_records(path: Path) -> list[Record]:
    """The records of a file.

    Raises:
        UserError: no such file, or of another version.
    """
    if not path.exists():
        raise UserError(f"no records at {path}; only views that learn from graphs, hindsight or successes have them")
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise UserError(f"{path} is of another version; delete the run and make it again")
        return [Record(**_tuples(record)) for record in content["records"]]
    except UserError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path} cannot be read ({error}); delete it and run the same command again") from error


def _tuples(record: dict[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return tuple(plain(part) for part in value) if isinstance(value, list) else value

    return {key: plain(value) for key, value in record.items()}
