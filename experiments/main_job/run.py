"""Medicine and Book, with and without a memory, three seeds each: python experiments/main_job/run.py [--jobs 2]

Every run is `python train.py env=delayed_evidence ...` with the default configuration on the same demonstrations;
with --jobs > 1 each has one thread, so its seconds are not those of `make train`. Finished runs are not
repeated, interrupted ones continue. Writes results/<task>.json; `python experiments/report.py main_job`
makes the table and the plot from them.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))


def command(task: str, memory: str, seed: int, jobs: int, extra: list[str]) -> list[str]:
    shared = [f"trainer.threads={1 if jobs > 1 else 0}", f"parallel.workers={1 if jobs > 1 else 0}"]
    picture = seed == 0 and memory == "trace"  # the recording and the exported file of one run a task
    more = [
        f"evaluation.recording={picture}",
        f"evaluation.export={picture}",
        f"evaluation.cleared={memory == 'trace'}",
    ]
    what = ["env=delayed_evidence", f"env.task={task}", f"memory={memory}", f"seed={seed}"]
    return [sys.executable, "train.py", *what, *shared, *more, "wandb=off", *extra]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", default=["medicine", "book"])
    parser.add_argument("--memories", nargs="+", default=["trace", "none"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time; with more than one, each has one thread")
    parser.add_argument("extra", nargs="*", help="more key=value for train.py")
    options = parser.parse_args()
    from trace_il.scores import write_results

    cases = [(t, m, s) for m in options.memories for s in options.seeds for t in options.tasks]
    for task in options.tasks:  # once, by all cores; the runs then find them
        subprocess.run([sys.executable, "collect.py", "env=delayed_evidence", f"env.task={task}"], cwd=ROOT, check=True)

    def run(case: tuple[str, str, int]) -> Path:
        log = ROOT / "runs" / ("main_job-" + "-".join(map(str, case)) + ".log")
        log.parent.mkdir(exist_ok=True)
        with log.open("w") as file:
            subprocess.run(command(*case, options.jobs, options.extra), cwd=ROOT, check=True, stdout=file, stderr=file)
        print("finished", *case, flush=True)
        return ROOT / f"runs/delayed_evidence-{case[0]}-{case[1]}-{case[2]}/summary.json"

    rows: dict[tuple[str, str, int], list[dict]] = {}
    with ThreadPoolExecutor(options.jobs) as pool:
        futures = {pool.submit(run, case): case for case in cases}
        for future in as_completed(futures):
            task, memory, seed = case = futures[future]
            summary = json.loads(future.result().read_text())
            rows[case] = []
            for arm, score in summary["scores"].items():
                name = memory if arm == "trained" else f"{memory}, {arm}"
                row = {"task": task, "policy": "act", "memory": name, "seed": seed, **score}
                row |= {f"seconds_{phase}": value for phase, value in summary["seconds"].items()}
                rows[case].append({**row, "trained_at": summary["commit"]})
            done = [case for case in cases if case[0] == task and case in rows]
            seeds = sorted({seed for _, _, seed in done})
            write_results(HERE / f"results/{task}.json", seeds, [row for case in done for row in rows[case]])


if __name__ == "__main__":
    main()
