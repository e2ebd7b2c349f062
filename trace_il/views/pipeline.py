"""The job of view planning: a base agent, then explore -> graph -> distil -> train, again and again, reinforcement once
more, and the verdict.

Every phase leaves a file that is whole or not there, in a folder of its iteration; a killed job goes on with the first
phase whose file is missing.

    base/agent.pt                       trained on random transitions of one and two moves
    iteration_<i>/explore/*.npz         every trajectory;  explored.pt the agent after reinforcement
    iteration_<i>/graphs/room_<k>.npz   the view graphs
    iteration_<i>/records.json          distilled records
    iteration_<i>/agent.pt, scores.json the agent after supervised training, and its scores on development rooms
    last/explore/*.npz, agent.pt        reinforcement after the last iteration: shortest ways do not teach how to search
    agent.pt, summary.json              the last agent, and its scores on test rooms
"""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from rich.console import Console

from envs.view_planning.env import BUDGET
from envs.view_planning.lattice import path_nodes, random_walk
from envs.view_planning.tasks import Distances, Place

from ..checkpoint import describe, read_checkpoint
from ..config import to_plain
from ..errors import UserError
from ..files import atomic_write
from ..parallel import core_count
from ..run_folder import is_main_process, open_run, phase, read_about
from ..scores import provenance, view_table
from ..trainer import fit_or_continue, make_trainer, on_gpu
from ..validate import validate_views
from .config import ViewRunConfig, env_arguments, from_plain
from .distill import CHOICE_KINDS, KINDS, SHARES, Record, Sampler, distil, single_graphs, successes
from .explore import episodes, run, sampled
from .export import write
from .graph import Trajectory, ViewGraph, load_trajectories, save_trajectories
from .judge import evaluate, questions, random_moves
from .learn import Distillation, RecordData
from .reinforce import Reinforcement, RolloutData
from .storage import load_records, load_weights, make_agent, save_agent, save_records

VIEWS = Path("data/view_planning")  # rendered views, shared by all runs
DEV_EPISODES, DEV_ITEMS, DEV_SEED = 100, 100, 2_600_000  # at most as many as the last evaluation has
BASE_MOVES, ORIGINS, WALKS = 2, 100, 8  # of random transitions: longest, origins a room, walks from each
HELD, HELD_MOVES = 400, 6  # records of development rooms for validation, and the most moves they are about


def rooms(config: ViewRunConfig, split: str, count: int) -> list[Place]:
    """Rooms of a split. Raises UserError for one that cannot be."""
    own = env_arguments(config.env)
    try:
        made = [Place(split, i, own["image_size"], (own["pieces"][0], own["pieces"][1]), VIEWS) for i in range(count)]
    except ValueError as error:
        raise UserError(f"env: {error}") from error
    episodes(made, 4, 0, distances(config))
    if split != "train" and config.evaluation.items:
        questions(made, len(made), 0)
    return made


def distances(config: ViewRunConfig) -> Distances:
    return Distances((config.env.moves[0], config.env.moves[1]))


class Job:
    """One run."""

    def __init__(self, config: ViewRunConfig, folder: Path, console: Console) -> None:
        self.config, self.folder, self.console = config, folder, console
        self.train, self.dev = rooms(config, "train", config.env.rooms), rooms(config, "dev", config.env.dev_rooms)
        self.test = rooms(config, "test", config.env.test_rooms)  # now, so that one that cannot be is named now
        self.agent, self.reinforced = make_agent(config), config.view.reinforcement != "none"
        self.agent.to("cuda" if on_gpu(config.trainer) else "cpu")  # also where no phase is left to train in
        rng = np.random.default_rng(config.seed)
        samplers = [Sampler(place, transitions(place, rng, HELD_MOVES)) for place in self.dev]
        self.validation = (self.dev, list(distil(samplers, HELD, config.seed)))

    def fit(self, records: Sequence[Record], where: Path, epochs: int, seed: int) -> None:
        """Supervised training of the agent on records of the training rooms."""
        trainer = replace(self.config.trainer, epochs=epochs)
        module = Distillation(self.agent, trainer.learning_rate, epochs * trainer.steps_per_epoch)
        data = RecordData(self.train, records, self.validation, trainer.batch_size, trainer.steps_per_epoch, seed)
        self._lightning(module, data, where, replace(self.config, trainer=trainer), "val/loss")

    def reinforce(self, where: Path, rounds: int, seed: int) -> None:
        """Rounds of reinforcement; their trajectories stay in the folder."""
        view = self.config.view
        group = view.group if view.reinforcement == "grpo" else 1
        trainer = replace(self.config.trainer, epochs=rounds, steps_per_epoch=1_000_000, ema=0.0)
        # What was done is judged by the agent that did it, in full precision: ratios of the two begin at 1.
        trainer.precision = "32-true"
        module = Reinforcement(self.agent, trainer.rl_learning_rate, group)
        data = RolloutData(
            self.agent, self.train, view.rollouts // view.rounds, group, distances(self.config), trainer.batch_size,
            seed, where / "explore",
        )  # fmt: skip
        self._lightning(module, data, where / "reinforcement", replace(self.config, trainer=trainer), "rl/loss")

    def _lightning(
        self, module: pl.LightningModule, data: pl.LightningDataModule, where: Path, config: ViewRunConfig, monitor: str
    ) -> None:
        where.mkdir(parents=True, exist_ok=True)
        run_id = json.loads((self.folder / "run.json").read_text())["id"]
        phase = "-".join(where.relative_to(self.folder).parts)
        module.train()
        lightning = make_trainer(config, where, f"{run_id}-{phase}", describe(to_plain(config)), monitor, [])
        fit_or_continue(lightning, module, data, where, self.console)
        last = read_checkpoint(where / "checkpoints/last.ckpt")  # with the averaged weights, where there are any
        weights = {k.removeprefix("agent."): v for k, v in last["state_dict"].items() if k.startswith("agent.")}
        self.agent.load_state_dict(weights)
        self.agent.to(lightning.strategy.root_device)  # Lightning leaves it on the CPU

    def base(self) -> None:
        """An agent that knows what one move or two do, and has never planned."""
        path, view = self.folder / "base/agent.pt", self.config.view
        if not path.exists():
            if view.init is not None:
                load_weights(Path(view.init), self.agent)
            else:
                rng = np.random.default_rng([self.config.seed, 1])
                samplers = [
                    Sampler(place, transitions(place, rng, BASE_MOVES), walk=True, longest=BASE_MOVES)
                    for place in self.train
                ]
                records = list(distil(samplers, view.records, self.config.seed))
                self.fit(records, self.folder / "base", self.config.trainer.base_epochs, self.config.seed)
            save_agent(path, self.agent, self.config)
        load_weights(path, self.agent)

    def explore(self, number: int) -> list[Trajectory]:
        """Phase 1: trajectories of an iteration; with reinforcement the agent changes meanwhile."""
        view, where = self.config.view, self._where(number)
        explored, seed = where / "explored.pt", self.config.seed * 100 + number
        if not explored.exists():
            if self.reinforced:
                self.reinforce(where, view.rounds, seed)
            else:
                tasks = episodes(self.train, view.rollouts, seed, distances(self.config))
                if view.explore == "random":
                    found = random_moves(self.train, tasks, seed, stops=False)
                else:
                    found = run(self.agent, self.train, tasks, sampled(torch.Generator().manual_seed(seed)))
                save_trajectories(where / "explore/epoch_0.npz", found)
            save_agent(explored, self.agent, self.config)
        load_weights(explored, self.agent)
        return self._explored(number)

    def graphs(self, number: int, found: Sequence[Trajectory]) -> list[ViewGraph]:
        """Phase 2: the view graph of every room, with what was found until now."""
        view, where, out = self.config.view, self._where(number), []
        for place in self.train:
            path = where / f"graphs/room_{place.index}.npz"
            if not path.exists():
                before = self._where(number - 1) / path.relative_to(where)
                known = view.persistent and number > 1
                graph = ViewGraph.load(before, place.table) if known else ViewGraph(view.reverse)
                for own in found:
                    if own.scene == place.index:
                        graph.add(own.nodes, own.moves)
                graph.save(path, place.table)
            out.append(ViewGraph.load(path, place.table))
        return out

    def records(self, number: int, graphs: Sequence[ViewGraph]) -> list[Record]:
        """Phase 3: distilled records."""
        view, path = self.config.view, self._where(number) / "records.json"
        if not path.exists():
            seed = self.config.seed * 100 + number
            first = 1 if view.persistent else number
            every = [own for before in range(first, number + 1) for own in self._explored(before)]
            choices, paths = (
                [share * ((kind in CHOICE_KINDS) == wanted) for kind, share in zip(KINDS, SHARES, strict=True)]
                for wanted in (True, False)
            )
            if view.learn == "success":
                made = successes(every, round(view.records * sum(paths)), seed)
            elif view.learn == "hindsight":
                alone = single_graphs(every, view.reverse)
                samplers = [
                    Sampler(self.train[one.scene], graph, [one], view.walk, view.longest)
                    for one, graph in zip(every, alone, strict=True)
                ]
                made = list(distil(samplers, round(view.records * sum(paths)), seed, paths))
            else:
                own = [[one for one in every if one.scene == place.index] for place in self.train]
                samplers = [
                    Sampler(*parts, view.walk, view.longest, view.longest_choice)
                    for parts in zip(self.train, graphs, own, strict=True)
                ]
                made = list(distil(samplers, view.records, seed))
            if made and view.learn != "graph":  # choices need several ways from a node, which one trajectory has not
                rng = np.random.default_rng([self.config.seed, 1])
                near = [(place, transitions(place, rng, BASE_MOVES)) for place in self.train]
                known = [Sampler(place, graph, longest=BASE_MOVES) for place, graph in near]
                made += list(distil(known, round(view.records * sum(choices)), seed, choices))
            save_records(path, made)
        return load_records(path)

    def iteration(self, number: int) -> None:
        """All phases of one."""
        where, view = self._where(number), self.config.view
        found = self.explore(number)
        graphs = self.graphs(number, found) if view.learn == "graph" else []
        path = where / "agent.pt"
        if not path.exists():
            if view.learn != "none":
                records = self.records(number, graphs)
                if records:
                    self.fit(records, where / "distilled", self.config.trainer.epochs, self.config.seed * 100 + number)
                else:
                    self.console.print(
                        "nothing has succeeded yet: there is nothing to learn from, the agent stays as it is"
                    )
            save_agent(path, self.agent, self.config)
        load_weights(path, self.agent)
        if not (where / "scores.json").exists():
            own = self.config.evaluation
            count, items = min(DEV_EPISODES, own.episodes), min(DEV_ITEMS, own.items)
            scores = self.judge(self.dev, count, items, DEV_SEED)
            if view.explore != "random":  # which never says STOP
                scores["explored_success"] = float(np.mean([own.success for own in found]))
            scores["explored_moves"] = int(sum(len(own.moves) for own in found))
            seen = list(zip(graphs, self.train, strict=False))
            scores["graphs"] = _mean([graph.statistics(place.room.starts) for graph, place in seen])
            if seen:
                scores["coverage"] = float(np.mean([len(graph) / place.reachable(BUDGET) for graph, place in seen]))
            atomic_write(where / "scores.json", json.dumps(scores).encode())

    def last(self) -> list[Trajectory]:
        """Reinforcement after the last iteration; its trajectories."""
        view, where = self.config.view, self.folder / "last"
        if not (self.reinforced and view.iterations and view.last_rounds):
            return []
        path = where / "agent.pt"
        if not path.exists():
            self.reinforce(where, view.last_rounds, self.config.seed * 100)
            save_agent(path, self.agent, self.config)
        load_weights(path, self.agent)
        return _trajectories(where, view.last_rounds)

    def judge(self, places: Sequence[Place], count: int, items: int, seed: int) -> dict[str, Any]:
        """Scores on rooms: `count` episodes and `items` questions in all."""
        each = -(-count // len(places))
        return evaluate(
            self.agent, places, episodes(places, each, seed, distances(self.config)), questions(places, items, seed)
        )

    def _explored(self, number: int) -> list[Trajectory]:
        return _trajectories(self._where(number), self.config.view.rounds if self.reinforced else 1)

    def _where(self, number: int) -> Path:
        return self.folder / f"iteration_{number}"


def _trajectories(where: Path, rounds: int) -> list[Trajectory]:
    return [own for epoch in range(rounds) for own in load_trajectories(where / f"explore/epoch_{epoch}.npz")]


def transitions(place: Place, rng: np.random.Generator, longest: int) -> ViewGraph:
    """A graph of random walks of `longest` moves from random poses of a room."""
    graph = ViewGraph()
    anywhere = np.flatnonzero(np.any([away >= 0 for away in place.from_starts.values()], axis=0))
    for start in rng.choice(anywhere, ORIGINS).repeat(WALKS):
        moves = random_walk(place.table, int(start), longest, rng)
        graph.add(path_nodes(place.table, int(start), moves), moves)
    return graph


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]} if rows else {}


def view_job(config: ViewRunConfig) -> Path:
    """All phases of a run; returns the path of its summary.json. A finished run is reported, not repeated."""
    validate_views(config)
    console = Console(quiet=not is_main_process())
    folder, summary = open_run(config, from_plain)
    path = folder / "summary.json"
    if summary is not None:
        console.print(f"{folder} is finished; overwrite=true makes it again, name=... makes another")
        console.print(view_table(summary["scores"], config.name))
        return path
    torch.set_num_threads(config.trainer.threads or core_count())
    with phase(folder, "rooms"):
        job = Job(config, folder, console)
    with phase(folder, "base agent"):
        job.base()
    for number in range(1, config.view.iterations + 1):
        begin = time.perf_counter()
        with phase(folder, "iterations"):
            job.iteration(number)
        own = json.loads((folder / f"iteration_{number}/scores.json").read_text())
        console.print(f"iteration {number}: {100 * own['success']:.0f} % on development rooms, "
                      f"{time.perf_counter() - begin:.0f} s")  # fmt: skip
    with phase(folder, "last reinforcement"):
        last = job.last()
    save_agent(folder / "agent.pt", job.agent, config)
    evaluation, explored = config.evaluation, sum(len(own.moves) for own in last)
    for number in range(1, config.view.iterations + 1):
        explored += json.loads((folder / f"iteration_{number}/scores.json").read_text())["explored_moves"]
    with phase(folder, "evaluation"):
        scores = {"trained": job.judge(job.test, evaluation.episodes, evaluation.items, evaluation.seed)}
        for number in range(1, config.view.iterations + bool(last)):
            load_weights(folder / f"iteration_{number}/agent.pt", job.agent)
            judged = job.judge(job.test, evaluation.episodes, evaluation.items, evaluation.seed)
            own = json.loads((folder / f"iteration_{number}/scores.json").read_text())
            found = {key: own[key] for key in ("explored_success", "coverage") if key in own}
            scores[f"iteration {number}"] = (
                judged | found | {f"graph_{key}": own["graphs"][key] for key in own["graphs"]}
            )
    parameters = sum(parameter.numel() for parameter in job.agent.parameters())
    summary = {**provenance([config.seed]), "name": config.name, "scores": scores, "parameters": parameters}
    summary["explored_moves"] = explored
    phases = [read_checkpoint(path) for path in folder.rglob("checkpoints/last.ckpt")]
    summary["optimiser_steps"] = sum(phase["global_step"] for phase in phases)
    summary |= read_about(folder)
    if evaluation.recording:
        from .viewer import save_picture, show, write_recording

        write_recording(folder / "recording.rrd", show(config, folder, evaluation.seed))
        for split in ("train", "test"):
            save_picture(folder / f"episode_{split}.png", show(config, folder, evaluation.seed, split))
    atomic_write(path, json.dumps(summary, indent=2).encode())
    console.print(view_table(scores, config.name))
    console.print("seconds: " + ", ".join(f"{phase} {value:.0f}" for phase, value in summary["seconds"].items()))
    console.print(f"written to {folder}")
    return path


def export_records(config: ViewRunConfig, folder: Path, iteration: int, out: Path) -> int:
    """Write the records of an iteration (0: the last) for vision-language models; returns how many there are.

    Raises:
        UserError: there are no such records, or the folder `out` exists.
    """
    if out.exists():
        raise UserError(f"{out} exists; give another out=..., or delete it")
    records = load_records(folder / f"iteration_{iteration or config.view.iterations}/records.json")
    return write(out, rooms(config, "train", config.env.rooms), records)
