"""Train a policy and judge it: python train.py [env=...] [memory=...] [key=value ...]

Demonstrations are collected if they are missing; the run can be interrupted and the same command continues
it. `python train.py -m memory=none,gru,trace` compares memories. All keys: trace_il/config.py.
"""

from trace_il.cli import run_program
from trace_il.config import TrainConfig


def main(config: TrainConfig) -> str:
    from trace_il.pipeline import main_job

    return str(main_job(config))


if __name__ == "__main__":
    run_program(main, "train")
