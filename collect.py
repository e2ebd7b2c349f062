"""Collect expert demonstrations as a LeRobotDataset v3.

python collect.py [env=...] [env.KEY=VALUE] [data.episodes=250] [data.root=FOLDER] [data.seed=...]
    all keys: trace_il/config.py (CollectConfig) and trace_il/env_config.py, or with --cfg job

Parallel over cores (parallel.workers=), or machines (parallel.ray_address=); can be interrupted, and the same command
continues.
"""

from trace_il.cli import run_program
from trace_il.config import CollectConfig


def main(config: CollectConfig) -> None:
    from rich.console import Console

    from trace_il.data.demonstrations import collect_missing
    from trace_il.validate import validate_collection

    validate_collection(config)
    console = Console()
    console.print(f"dataset: {collect_missing(config, console)}")


if __name__ == "__main__":
    run_program(main, "collect", __doc__)
