"""Write a run's policy as TorchScript: python export.py run=runs/NAME [checkpoint=last|best]

Writes policy.ts (needs torch alone) and policy.json (metadata, parity, latency) into the run folder.
"""

import sys
from dataclasses import dataclass

from trace_il.cli import guarded
from trace_il.errors import UserError
from trace_il.options import parse, read_run


@dataclass
class ExportOptions:
    run: str = ""  # run folder
    checkpoint: str = "last"  # last, best


def main() -> None:
    options = parse(ExportOptions, sys.argv[1:])
    if not options.run:
        raise UserError("give run=runs/NAME")
    config, folder = read_run(options.run)
    from trace_il.export import export_run

    report = export_run(config, folder, options.checkpoint)
    errors = ", ".join(f"{name} {value:.1e}" for name, value in report["max_error"].items())
    print(f"{report['file']}: largest difference to the eager policy over {report['steps']} steps: {errors}")
    print(f"latency of a step: p50 {report['step_ms_p50']:.2f} ms, p95 {report['step_ms_p95']:.2f} ms")


if __name__ == "__main__":
    guarded(main)
