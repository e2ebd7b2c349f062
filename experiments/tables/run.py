"""The tables of the paper in simulation: python experiments/tables/run.py TABLE [TABLE ...] [--jobs 2]

    main        five tasks, ACT and diffusion, without a memory and with TRACE
    memories    every memory with distractors and twice the delay, and with two bits in one episode
    ablations   TRACE with a part left out or a size changed, on the two bits, and on Medicine and Book as above
    pretraining five tasks with 25 demonstrations, with and without an encoder that learned from views before

Every run is `python train.py ...` with the default configuration but for what its row says, on the same
demonstrations, steps and evaluation seeds. Finished runs are not repeated, interrupted ones continue. Writes
results/<table>-<setting>.json, where rows of runs that were not asked for now stay; `python experiments/report.py
tables` makes tables and plots from them.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from common import (  # noqa: E402
    ABLATIONS,
    MEMORIES,
    PRETRAINING,
    SETTINGS,
    TASKS,
    VIEWS,
    Case,
    Row,
    collect,
    in_parallel,
    score_rows,
    train,
)  # fmt: skip

from trace_il.scores import write_results  # noqa: E402


def cases(table: str, seeds: list[int]) -> list[Case]:
    if table == "main":
        arms = [(policy, memory) for policy in ("act", "diffusion") for memory in ("trace", "none")]
        return [Case(task, *arm, seed) for seed in seeds for arm in arms for task in TASKS]
    if table == "memories":
        hard = [setting for setting in SETTINGS if setting not in TASKS]
        return [Case(setting, "act", memory, seed) for seed in seeds for memory in MEMORIES for setting in hard]
    if table == "pretraining":
        return [Case(task, "act", arm, seed) for seed in seeds for arm in PRETRAINING for task in TASKS]
    on = ("two bits", "medicine, hard", "book, hard")
    return [Case(setting, "act", ablation, seed) for seed in seeds for setting in on for ablation in ABLATIONS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", choices=["main", "memories", "ablations", "pretraining"])
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--policies", nargs="+", choices=["act", "diffusion"], default=["act", "diffusion"])
    parser.add_argument("--arms", nargs="+", help="memories or ablations; default: all of the table's")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; with more than one, each has one thread")
    options = parser.parse_args()

    def scores(case: Case, summary: Row) -> list[Row]:
        labels = {"task": case.setting, "policy": case.policy, "seed": case.seed}
        labels |= {f"parameters_{part}": count for part, count in summary["training"]["parameters"].items()}
        return score_rows(labels, case.memory, summary)

    def do(case: Case) -> list[Row]:
        return scores(case, train(case.name, case.overrides, options.jobs))

    wanted: dict[str, list[Case]] = {}
    for table in options.tables:
        own = [case for case in cases(table, options.seeds) if case.setting in options.settings]
        own = [case for case in own if case.policy in options.policies]
        wanted[table] = [case for case in own if options.arms is None or case.memory in options.arms]
        if not wanted[table]:
            parser.error(f"nothing of the table {table} is left; settings and arms are in experiments/common.py")
    for setting in sorted({case.setting for own in wanted.values() for case in own}):
        collect(SETTINGS[setting])
    if "pretraining" in options.tables:
        train(VIEWS, ["view=graph_distillation"], options.jobs)
    for table, own in wanted.items():

        def write(rows: dict[Case, list[Row]], table: str = table) -> None:
            for setting in {case.setting for case in rows}:
                own = [case for case in rows if case.setting == setting]
                label = "".join(c if c.isalnum() else "_" for c in setting)
                lines, seeds = [row for case in own for row in rows[case]], sorted({case.seed for case in own})
                write_results(HERE / f"results/{table}-{label}.json", seeds, lines, ("policy", "memory", "seed"))

        in_parallel(own, options.jobs, do, write)


if __name__ == "__main__":
    main()
