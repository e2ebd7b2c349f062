"""Collect expert demonstrations: python collect.py [env=...] [data.episodes=100] [data.root=...]

Writes a LeRobotDataset v3. Parallel over cores; can be interrupted, and the same command continues.
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
    run_program(main, "collect")
