"""Medicine and Book, with and without a memory, three seeds each: python experiments/main_job/run.py [--jobs 2]

Every run is `python train.py env=delayed_evidence ...` with the default configuration on the same demonstrations;
with --jobs > 1 each has one thread, so its seconds are not those of `make train`. Finished runs are not
repeated, interrupted ones continue. Writes results/<task>.json; `python experiments/report.py main_job`
makes the table and the plot from them.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from common import Row, collect, in_parallel, score_rows, train  # noqa: E402

from trace_il.scores import write_results  # noqa: E402

Case = tuple[str, str, int]  # task, memory, seed
KEY = ("memory", "seed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["medicine", "book"])
    parser.add_argument("--memories", nargs="+", default=["trace", "none"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; with more than one, each has one thread")
    parser.add_argument("extra", nargs="*", help="more key=value for train.py")
    options = parser.parse_args()

    def do(case: Case) -> list[Row]:
        task, memory, seed = case
        picture = seed == 0 and memory == "trace"  # the recording and the exported file of one run a task
        what = ["env=delayed_evidence", f"env.task={task}", f"memory={memory}", f"seed={seed}"]
        what += [f"evaluation.recording={picture}", f"evaluation.export={picture}"]
        what += [f"evaluation.cleared={memory == 'trace'}", *options.extra]
        summary = train(f"delayed_evidence-{task}-{memory}-{seed}", what, options.jobs)
        return score_rows({"task": task, "policy": "act", "seed": seed}, memory, summary)

    def write(rows: dict[Case, list[Row]]) -> None:
        for task in {case[0] for case in rows}:
            own = [case for case in rows if case[0] == task]
            seeds = sorted({seed for _, _, seed in own})
            write_results(HERE / f"results/{task}.json", seeds, [row for case in own for row in rows[case]], KEY)

    for task in options.tasks:  # once, by all cores; the runs then find them
        collect(["env=delayed_evidence", f"env.task={task}"])
    cases = [(t, m, s) for m in options.memories for s in options.seeds for t in options.tasks]
    in_parallel(cases, options.jobs, do, write)


if __name__ == "__main__":
    main()
