"""What the memory does: python experiments/diagnostics/run.py [--settings medicine book "two bits"] [--seeds 0 1 2]

    routes         the path that feeds the signature is changed; are routing and decision the same?
    stability      longer episodes and distractors; do slots, readout and decision stay what they were?
    probe          can the cue be read from the memory by a linear map, from when and until when?
    interventions  slots reset, frozen or swapped in closed loop; does the decision follow the memory?

Uses the runs of the tables, of TRACE or of other memories, and trains those that are missing. Paths are those of
held-out demonstrations. Writes results/<part>.json; `python experiments/report.py diagnostics` makes tables and plots.
"""

import argparse
import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from common import MEMORIES, ROOT, SETTINGS, Case, Row, collect, in_parallel, train  # noqa: E402

from envs.base import Phase  # noqa: E402
from trace_il.agent import Agent  # noqa: E402
from trace_il.checkpoint import load_agent  # noqa: E402
from trace_il.config import TrainConfig  # noqa: E402
from trace_il.data.datamodule import EpisodeDataModule  # noqa: E402
from trace_il.data.demonstrations import dataset_root, episode_count, episodes_per_scene  # noqa: E402
from trace_il.diagnostics import PROBE, LinearProbe, cosine, pass_through, transforms  # noqa: E402
from trace_il.env_config import env_options  # noqa: E402
from trace_il.environment import make_env  # noqa: E402
from trace_il.interventions import INTERVENTIONS, intervene  # noqa: E402
from trace_il.learn import BranchTemplates, branch_ticks  # noqa: E402
from trace_il.options import read_run  # noqa: E402
from trace_il.scores import write_results  # noqa: E402

EPISODES, DEVELOPMENT = 24, 3_500_000  # of longer episodes for stability; their first seed
LANDMARKS = 8  # of the probe in each phase


@dataclass
class Trained:
    """A run, its demonstrations, and what judges its decisions."""

    case: Case
    config: TrainConfig
    agent: Agent
    data: EpisodeDataModule
    templates: BranchTemplates


def load(case: Case) -> Trained:
    config, folder = read_run(str(ROOT / "runs" / case.name))
    agent = load_agent(folder / "checkpoints/last.ckpt")
    root = ROOT / dataset_root(config)[0]
    data = module(config, root, episode_count(config, root), episodes_per_scene(root, config))
    return Trained(case, config, agent, data, BranchTemplates(agent, data))


def module(config: TrainConfig, root: Path, episodes: int, together: int = 1) -> EpisodeDataModule:
    every, chunk = config.agent.tick_every, config.policy.chunk
    return EpisodeDataModule(root, every, chunk, episodes, config.data.holdout, together=together)


def routes(trained: Trained, _options: argparse.Namespace) -> list[Row]:
    """Route similarity and branch consistency (TRACE, diagnostics), 0 to 100, mean over held-out demonstrations.

    Similarity is a cosine of weights that are never negative, so it is not zero for routes that have nothing to do with
    each other: what routing to all slots alike has, and the same routing in a random order of the ticks, stand beside.
    """
    agent, scores = trained.agent, {}
    for number in trained.data.held_out_numbers:
        batch = trained.data.episodes.batch([number])
        reference, chunks = pass_through(agent, batch.images, batch.states)
        branch, own = branch_ticks(batch.phase[0]), trained.templates.decide(chunks, batch.phase[0])
        if not branch or own is None:
            continue
        path, ticks = agent.standardize_state(batch.states[0]), torch.arange(len(chunks)) * agent.tick_every
        rng = np.random.default_rng(number)
        for name, change in transforms(path, ticks, agent.standardize_state.mask, rng).items():
            readout, other_chunks = pass_through(agent, batch.images, batch.states, change)
            there, before = change.nearest(len(chunks)), slice(0, branch[0])
            route = cosine(readout.routing[there][before], reference.routing[before], dim=-1).mean()
            alike = cosine(readout.summary[there][branch], reference.summary[branch], dim=-1).mean()
            decided = trained.templates.decide(other_chunks[there], batch.phase[0])
            agree = np.mean([a == b for a, b in zip(own, decided or [], strict=True)])
            entry = scores.setdefault(name, [])
            entry.append([100 * float(route), 100 * (0.5 * (1 + float(alike)) / 2 + 0.5 * agree), 100 * agree])
        before, rng = reference.routing[: branch[0]], np.random.default_rng(number)
        nothing = {"(all slots alike)": torch.ones_like(before), "(ticks shuffled)": before[rng.permutation(branch[0])]}
        for name, routing in nothing.items():
            scores.setdefault(name, []).append([100 * float(cosine(routing, before, dim=-1).mean())])
    keys = ("route_similarity", "branch_consistency", "decision_agreement")
    return [
        {"transform": name, "episodes": len(v), **dict(zip(keys, np.mean(v, axis=0).tolist(), strict=False))}
        for name, v in scores.items()
    ]


def variants(setting: str, delay: float) -> dict[str, list[str]]:
    """Longer episodes of a setting than those of the run: what is changed in the environment.

    Args:
        delay: of the run; in control steps where the environment counts it so.
    """
    if "env=corridor" not in SETTINGS[setting]:
        longer = {f"{k}x": [f"env.delay={delay * k}"] for k in (1, 1.25, 1.5, 2)}
        return longer | {"1.5x, 2 distractors": [f"env.delay={delay * 1.5}", "env.decoys=2"]}
    return {f"{k}x": [f"env.delay={round(delay * k)}"] for k in (1, 1.25, 1.5, 2)}


def stability(trained: Trained, _options: argparse.Namespace) -> list[Row]:
    """Churn, write entropy, occupancy, and consistency with the episode of the same scene at 1x."""
    agent, rows, first = trained.agent, [], {}
    for name, changes in variants(trained.case.setting, env_options(trained.config.env)["delay"]).items():
        label = "".join(c if c.isalnum() else "_" for c in f"{trained.case.setting}-{name}")
        root = ROOT / "data" / f"stability-{label}"
        words = [word for word in SETTINGS[trained.case.setting] if word.startswith("env")]
        words += [*changes, f"data.episodes={EPISODES}", f"data.seed={DEVELOPMENT}"]
        collect([*words, "data.disturbance=0", f"data.root={root}"])
        data = module(trained.config, root, EPISODES)
        entries = []
        for number in range(EPISODES):
            batch = data.episodes.batch([number])
            readout, chunks = pass_through(agent, batch.images, batch.states)
            branch, decided = branch_ticks(batch.phase[0]), trained.templates.decide(chunks, batch.phase[0])
            if not branch or decided is None:
                continue
            routing = readout.routing[: branch[-1]].clamp_min(1e-9)
            slots = agent.memory.slots
            churn = (routing[1:].argmax(-1) != routing[:-1].argmax(-1)).float().mean() / agent.tick_every
            entropy = -(routing * routing.log()).sum(-1).mean() / np.log(slots)
            used = routing.mean(0)
            occupancy = (-(used * used.log()).sum()).exp() / slots
            summary = readout.summary[branch]
            if name == "1x":
                first[number] = summary, decided
            if number not in first:
                continue
            reference = first[number]
            same = cosine(summary, reference[0], dim=-1).mean()
            agree = np.mean([a == b for a, b in zip(decided, reference[1], strict=True)])
            right = trained.templates.correct(chunks.unsqueeze(0), batch)[0]
            entries.append([float(churn), float(entropy), float(occupancy), float(same), float(agree), float(right)])
        keys = ("churn", "write_entropy", "occupancy", "readout_consistency", "decision_consistency", "branch_accuracy")
        mean = dict(zip(keys, np.mean(entries, axis=0).tolist(), strict=True))
        rows.append({"history": name, "episodes": len(entries), **mean})
    return rows


def landmarks(phase: Tensor, phases: list[int]) -> Tensor | None:
    """Ticks, evenly spaced in each of `phases`, at which the probe looks; None where one is missing.

    With two branches a phase comes twice, and only what belongs to the first is taken.
    """
    branch = (phase == Phase.BRANCH).nonzero()[:, 0]
    if len(branch) == 0:
        return None
    ends = (phase[branch[0] :] != Phase.BRANCH).nonzero()[:, 0]
    phase = phase[: int(branch[0]) + int(ends[0])] if len(ends) else phase
    ticks = [(phase == value).nonzero()[:, 0] for value in phases]
    if not all(len(own) for own in ticks):
        return None
    return torch.cat([own[torch.linspace(0, len(own) - 1, LANDMARKS).round().long()] for own in ticks])


def probe(trained: Trained, _options: argparse.Namespace) -> list[Row]:
    """Held-out accuracy of a linear map to the cue, from the slots and, as a control, from the present content."""
    first = trained.data.episodes.batch(trained.data.train_numbers[:1]).phase[0]
    phases, splits = sorted(set(first.tolist())), []
    for numbers in (trained.data.train_numbers, trained.data.held_out_numbers):
        slots, content, cues = [], [], []
        for number in numbers:
            batch = trained.data.episodes.batch([number])
            at = landmarks(batch.phase[0], phases)
            if at is None:
                continue
            evidence = trained.agent.gather(batch.images, batch.states)[1]
            slots.append(trained.agent.memory.scan(evidence).slots[0, at].flatten(1))
            content.append(evidence.content[0, at])
            cues.append(int(batch.cue[0]))
        splits.append((torch.stack(slots), torch.stack(content), torch.tensor(cues)))
    (train_slots, train_content, train_cue), (test_slots, test_content, test_cue) = splits
    rows = []
    for index in range(len(phases) * LANDMARKS):
        row: Row = {"phase": phases[index // LANDMARKS], "place": index % LANDMARKS / (LANDMARKS - 1)}
        for name, given, asked in (("slots", train_slots, test_slots), ("content", train_content, test_content)):
            logits = LinearProbe.fit(given[:, index], train_cue)(asked[:, index])
            row[name] = float((logits.argmax(-1) == test_cue).float().mean())
        rows.append({**row, "episodes": len(test_cue), "chance": 1 / len(train_cue.unique())})
    # One map for the whole shared segment; the viewer shows what it reads.
    shared = [i for i in range(train_slots.shape[1]) if phases[i // LANDMARKS] == Phase.SHARED]
    whole = LinearProbe.fit(train_slots[:, shared].flatten(0, 1), train_cue.repeat_interleave(len(shared)))
    whole.save(ROOT / "runs" / trained.case.name / PROBE)
    return rows


def interventions(trained: Trained, options: argparse.Namespace) -> list[Row]:
    """How often the own and how often a wrong branch is taken, untouched and after each intervention, of the episodes
    in which it could be made."""
    env = make_env(trained.config.env.id, env_options(trained.config.env))
    if hasattr(env.unwrapped, "camera_period"):
        env.unwrapped.camera_period = trained.agent.tick_every
    first = trained.config.evaluation.seed
    results = [intervene(trained.agent, env, seed, INTERVENTIONS) for seed in range(first, first + options.episodes)]
    env.close()
    rows: list[Row] = []
    for kind in ("untouched", *INTERVENTIONS):
        made = [own for own in results if kind == "untouched" or own[kind] is not own["untouched"]]
        decided = np.array([own[kind].branch_correct for own in made])
        own, wrong = (float((decided == branch).sum() / max(len(made), 1)) for branch in (1, 0))
        rows.append({"intervention": kind, "episodes": len(decided), "own_branch": own, "wrong_branch": wrong})
    return rows


PARTS = {"routes": routes, "stability": stability, "probe": probe, "interventions": interventions}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=["medicine", "book", "two bits"])
    parser.add_argument("--policies", nargs="+", choices=["act", "diffusion"], default=["act"])
    parser.add_argument("--memories", nargs="+", choices=MEMORIES, default=["trace"], help="routes are TRACE's alone")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=20, help="rollouts of each intervention and run")
    parser.add_argument("--jobs", type=int, default=2, help="runs trained at a time, where they are missing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    words = product(options.settings, options.policies, options.memories, options.seeds)
    cases = [Case(*own) for own in words]
    for setting in options.settings:
        collect(SETTINGS[setting])
    in_parallel(cases, options.jobs, lambda case: [train(case.name, case.overrides, options.jobs)], lambda _: None)
    for part in options.parts:
        rows: list[Row] = []
        for case in cases:
            if part == "routes" and case.memory != "trace":
                continue
            found = PARTS[part](load(case), options)
            labels = {"task": case.setting, "policy": case.policy, "memory": case.memory, "seed": case.seed}
            rows += [{**labels, **row} for row in found]
            print(part, case, *found, sep="\n", flush=True)
            write_results(HERE / f"results/{part}.json", options.seeds, rows, ("task", "policy", "memory", "seed"))


if __name__ == "__main__":
    main()
