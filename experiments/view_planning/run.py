"""Planning by views, every way to learn from exploration: python experiments/view_planning/run.py [arms] [ablations]

    arms        the base agent, reinforcement alone, success-only bootstrapping, hindsight, graphs of random walks,
                graphs without reinforcement, graph distillation after one, two and three iterations; random moves and
                the oracle
    ablations   graph distillation without reverse edges, with random walks of the graph and nothing else (no parts of
                trajectories with the best moves as labels, either), with shorter paths, with a
                quarter of the rollouts, with a hidden pose, with a camera that may go back to where it was, with a
                graph that forgets (without merging: hindsight); with questions as short as hindsight's; all
                rollouts at once and then all training, in place of three iterations

All arms begin with the same base agent of a seed, explore in as many rollouts of at most 20 moves (a policy that says
STOP makes fewer: the table tells how many), and take as many optimiser steps where they are trained with supervision.
Those that explore by reinforcement are reinforced once more after the last iteration; the others have its rollouts in
their iterations.

Finished runs are not repeated, interrupted ones continue. Writes results/<part>.json.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from common import ROOT, Row, in_parallel, train  # noqa: E402

from envs.view_planning.tasks import Distances, Place  # noqa: E402
from trace_il.scores import write_results  # noqa: E402
from trace_il.views.config import ViewConfig, ViewPlanningConfig, ViewTrainerConfig  # noqa: E402
from trace_il.views.explore import episodes  # noqa: E402
from trace_il.views.judge import oracle, random_moves, score  # noqa: E402

VIEW = ViewConfig("")
ARMS: dict[str, tuple[str, ...]] = {
    "PPO": ("view=ppo",),
    "GRPO": ("view=grpo",),
    "success-only bootstrapping": ("view=bootstrapping",),
    "hindsight": ("view=hindsight",),
    "random-walk graph": ("view=random_graph",),
    "graph without reinforcement": ("view=graph_without_rl",),
    "graph distillation": ("view=graph_distillation",),
}
ABLATIONS: dict[str, tuple[str, ...]] = {
    "no reverse edges": ("view.reverse=false",),
    "random walks of the graph alone": ("view.walk=true",),
    "paths of at most 4 moves": ("view.longest=4",),
    "a quarter of the rollouts": ("view.rollouts=64",),
    "pose hidden": ("view.pose=false",),
    "may go back": ("view.revisit=true",),
    "graph forgets": ("view.persistent=false",),
    "questions of two moves": ("view.longest_choice=2",),
    "one iteration": tuple(
        f"{key}={value}"
        for key, value in {
            "view.iterations": 1,
            "view.rollouts": VIEW.iterations * VIEW.rollouts,
            "view.rounds": VIEW.iterations * VIEW.rounds,
            "view.records": VIEW.iterations * VIEW.records,
            "trainer.epochs": VIEW.iterations * ViewTrainerConfig().epochs,
        }.items()
    ),
}
TEST_SEED, TEST_EPISODES = 8_000_000, 500


@dataclass(frozen=True)
class Case:
    arm: str
    seed: int

    @property
    def name(self) -> str:
        return "views-" + "".join(c if c.isalnum() else "_" for c in self.arm) + f"-{self.seed}"

    @property
    def overrides(self) -> list[str]:
        ablation = ABLATIONS.get(self.arm)
        words = ARMS[self.arm] if ablation is None else ("view=graph_distillation", *ablation)
        # An agent without a pose cannot begin with one that has it.
        own_base = self.arm == "pose hidden"
        begin = [] if own_base else [f"view.init=runs/{base(self.seed)}/agent.pt"]
        return [*words, *begin, f"seed={self.seed}", "evaluation.recording=false"]


def base(seed: int) -> str:
    """Name of the run of a base agent."""
    return f"views-base-{seed}"


def base_words(seed: int) -> list[str]:
    """What the run of a base agent is asked for."""
    return ["view=base", f"seed={seed}", "evaluation.recording=false"]


def rows(arm: str, seed: int, summary: Row) -> list[Row]:
    """A row for the agent after each iteration."""
    out = []
    for stage, scores in summary["scores"].items():
        row = {"arm": arm, "seed": seed, "stage": stage, **scores, "trained_at": ", ".join(summary["commits"])}
        row["optimiser_steps"] = summary["optimiser_steps"]
        row["explored_moves"] = summary["explored_moves"]  # in all
        out.append(row | {f"seconds_{phase}": value for phase, value in summary["seconds"].items()})
    return out


def bounds(seed: int) -> list[Row]:
    """Random moves, and the shortest way on the whole lattice."""
    config = ViewPlanningConfig()
    places = [Place("test", i, config.image_size, folder=ROOT / "data/view_planning") for i in range(config.test_rooms)]
    tasks = episodes(places, -(-TEST_EPISODES // len(places)), TEST_SEED, Distances((config.moves[0], config.moves[1])))
    found = {"random moves": random_moves(places, tasks, seed), "oracle": oracle(places, tasks)}
    return [{"arm": arm, "seed": seed, "stage": "trained", **score(places, tasks, own)} for arm, own in found.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["arms"])
    parser.add_argument("--arms", nargs="+", help="of the parts; default: all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; with more than one, each has one thread")
    options = parser.parse_args()
    if unknown := set(options.parts) - {"arms", "ablations"}:
        parser.error(f"unknown part {sorted(unknown)[0]!r}; choose of arms and ablations")
    bases = {seed: train(base(seed), base_words(seed), 1) for seed in options.seeds}
    for part in options.parts:
        known = ARMS if part == "arms" else ABLATIONS
        chosen = [arm for arm in known if options.arms is None or arm in options.arms]
        if not chosen:
            parser.error(f"none of {options.arms} is an arm of {part}; they are: {', '.join(known)}")
        compared = chosen if part == "arms" else ["graph distillation", *chosen]
        cases = [Case(arm, seed) for seed in options.seeds for arm in compared]
        first: list[Row] = []
        if part == "arms":
            for seed in options.seeds:
                first += rows("base", seed, bases[seed]) + bounds(seed)

        def write(done: dict[Case, list[Row]], part: str = part, first: list[Row] = first) -> None:
            lines = [*first, *(row for own in done.values() for row in own)]
            write_results(HERE / f"results/{part}.json", options.seeds, lines, ("arm", "seed"))

        def do(case: Case) -> list[Row]:
            return rows(case.arm, case.seed, train(case.name, case.overrides, options.jobs))

        in_parallel(cases, options.jobs, do, write)


if __name__ == "__main__":
    main()
