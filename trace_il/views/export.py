"""Distilled records for the fine-tuning of vision-language models: ShareGPT and Alpaca, with images.

    <folder>/images/*.png           every view once
    <folder>/sharegpt.json          conversations: `messages` with one `<image>` for each of `images`
    <folder>/alpaca.jsonl           a line for every turn: `instruction`, `output`, `images`, and the turns before as
                                    `history`
    <folder>/records.jsonl          what the examples are made of: rooms, nodes, moves
    <folder>/dataset_info.json      how tools of the LLaMA-Factory family read both

Only training rooms are exported, so that no test room leaks. Every record is replayed before it is written.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from envs.view_planning.env import BUDGET
from envs.view_planning.lattice import Move, arrived, path_nodes
from envs.view_planning.tasks import CHOICES, Place

from ..errors import UserError
from .distill import Record

LETTERS = "ABCD"
WORDS = ", ".join(move.name.lower() for move in Move if move != Move.STOP)
HOW = (
    f"You move a camera in a room. The moves are: {WORDS}. forward, back, left, right, up and down go half a metre in "
    "the frame of the camera, the others turn it by 30 degrees."
)
Turn = tuple[str, str]  # what the user says and what the assistant says


def names(moves: Sequence[int]) -> str:
    """Moves in words."""
    return ", ".join(Move(move).name.lower() for move in moves) or "none"


def conversation(record: Record, nodes: np.ndarray) -> tuple[list[Turn], list[int]]:
    """Turns of a record and the nodes of its images, in the order of their `<image>`.

    Args:
        nodes: (T + 1,), what its moves lead through.
    """
    start, goal = int(nodes[0]), record.goal
    both = "Now you see: <image> The target is: <image> "
    if record.kind == "navigate":
        turns = [(f"{HOW} Go to the target and say stop there, in at most {BUDGET} moves. The target is: <image> "
                  "Now you see: <image>", "")]  # fmt: skip
        images = [goal, start]
        for move, node in zip(record.moves, nodes[1:], strict=True):
            turns[-1] = (turns[-1][0], names([move]))
            turns.append(("Now you see: <image>", ""))
            images.append(int(node))
        turns[-1] = (turns[-1][0], "stop")
        return turns, images
    if record.kind == "sequence":
        return [(f"{HOW} {both}Which moves lead there?", names(record.moves))], [start, goal]
    if record.kind == "choose_path":
        listed = " ".join(f"{LETTERS[i]}: {names(path)}." for i, path in enumerate(record.paths))
        return [(f"{HOW} {both}Which moves lead there? {listed}", LETTERS[record.answer])], [start, goal]
    if record.kind == "choose_view":
        listed = " ".join(f"{LETTERS[i]}: <image>" for i in range(CHOICES))
        asked = f"{HOW} Now you see: <image> What do you see after {names(record.moves)}? {listed}"
        return [(asked, LETTERS[record.answer])], [start, *record.ends]
    if record.kind == "distance":
        return [(f"{HOW} {both}How many moves apart are they?", str(len(record.moves)))], [start, goal]
    if record.kind == "inverse":
        asked = f"{HOW} Before you saw: <image> Now you see: <image> Which one move was made?"
        return [(asked, names(record.moves))], [start, goal]
    best = [Move(number).name.lower() for number in range(len(Move)) if record.best[0] >> number & 1]
    return [(f"{HOW} {both}Are you there? Say stop, or a move that brings you nearer.", best[-1])], [start, goal]


def replay(place: Place, record: Record) -> np.ndarray:
    """Nodes that the record's moves lead through.

    Raises:
        ValueError: they do not end where its goal counts as reached, or two options of a choice end at the same place.
    """
    nodes = path_nodes(place.table, record.start, record.moves)
    if not record.part and not arrived(place.metric[nodes[-1]], place.metric[record.goal]):
        raise ValueError(f"the moves of a record of room {record.scene} end at {nodes[-1]}, not at {record.goal}")
    for path, end in zip(record.paths, record.ends, strict=True):
        if path_nodes(place.table, record.start, path)[-1] != end:
            raise ValueError(f"an option of a record of room {record.scene} does not end at {end}")
    if len(set(record.ends)) != len(record.ends):
        raise ValueError(f"two options of a record of room {record.scene} end at the same place")
    return nodes


def examples(places: Sequence[Place], records: Sequence[Record]) -> Iterator[tuple[Record, list[Turn], list[str]]]:
    """Replayed records as turns, with the names of their images. Parts of trajectories are left out: their moves are no
    example to follow."""
    for record in records:
        if not record.part:
            turns, images = conversation(record, replay(places[record.scene], record))
            yield record, turns, [f"images/room_{record.scene}_{node}.png" for node in images]


def write(folder: Path, places: Sequence[Place], records: Sequence[Record]) -> int:
    """Write a dataset that was not there before; returns the number of its examples.

    Raises:
        UserError: the folder exists, or there is nothing to write.
        ValueError: rooms other than training rooms, or a record that does not replay.
    """
    if folder.exists():
        raise UserError(f"{folder} exists; give another out=..., or delete it")
    if any(place.split != "train" for place in places):
        raise ValueError("only training rooms are exported")
    if all(record.part for record in records):
        raise UserError("there is no record to export: in this iteration nothing was found to learn from")
    building = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    (building / "images").mkdir(parents=True)
    conversations, lines, sources = [], [], []
    for record, turns, images in examples(places, records):
        for name in images:
            path = building / name
            if not path.exists():
                scene, node = map(int, path.stem.split("_")[1:])
                Image.fromarray(places[scene].views(node)).save(path)
        messages = []
        for asked, said in turns:
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        conversations.append({"messages": messages, "images": images})
        for number, (asked, said) in enumerate(turns):
            shown = sum(text.count("<image>") for text, _ in turns[: number + 1])
            line = {"instruction": asked, "input": "", "output": said, "history": [*map(list, turns[:number])]}
            lines.append(line | {"images": images[:shown]})
        sources.append(asdict(record))
    (building / "sharegpt.json").write_text(json.dumps(conversations, indent=1))
    for name, rows in (("alpaca", lines), ("records", sources)):
        (building / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (building / "dataset_info.json").write_text(json.dumps(info(folder.name), indent=1))
    building.replace(folder)
    return len(conversations)


def info(name: str) -> dict[str, Any]:
    """Description of both files."""
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"prompt": "instruction", "query": "input", "response": "output", "history": "history"}
    columns["images"] = "images"
    return {
        f"{name}_sharegpt": {
            "file_name": "sharegpt.json", "formatting": "sharegpt",
            "columns": {"messages": "messages", "images": "images"}, "tags": tags,
        },
        f"{name}_alpaca": {"file_name": "alpaca.jsonl", "formatting": "alpaca", "columns": columns},
    }  # fmt: skip
