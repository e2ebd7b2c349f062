"""Take a run's work elsewhere.

python export.py run=runs/NAME [checkpoint=last|best]
    a policy as TorchScript: policy.ts (needs torch alone) and policy.json (metadata, parity, latency) in the run folder
python export.py run=runs/view_planning-graph_distillation-0 out=FOLDER [iteration=3]
    the distilled records of a view planner as ShareGPT and Alpaca with images, to fine-tune a vision-language model
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from trace_il.cli import asked_for_help, guarded
from trace_il.errors import UserError
from trace_il.options import parse, read_run, read_view_run, run_kind


@dataclass
class ExportOptions:
    run: str = ""  # run folder
    checkpoint: str = "last"  # last, best
    out: str | None = None  # folder for the records of a view planner
    iteration: int = 0  # of the records; 0: the last one


def main() -> None:
    if asked_for_help(__doc__):
        return
    options = parse(ExportOptions, sys.argv[1:])
    if not options.run:
        raise UserError("give run=runs/NAME")
    if run_kind(options.run) == "view planner":
        from trace_il.views.pipeline import export_records

        if options.out is None:
            raise UserError("give out=FOLDER for the records of a view planner")
        count = export_records(*read_view_run(options.run), options.iteration, Path(options.out))
        print(f"{options.out}: {count} examples")
        return
    if options.out is not None or options.iteration:
        raise UserError(f"out= and iteration= are for view planners; {options.run} is a policy, written beside its run")
    config, folder = read_run(options.run)
    from trace_il.export import export_run

    report = export_run(config, folder, options.checkpoint)
    errors = ", ".join(f"{name} {value:.1e}" for name, value in report["max_error"].items())
    print(f"{report['file']}: largest difference to the eager policy over {report['steps']} steps: {errors}")
    print(f"latency of a step: p50 {report['step_ms_p50']:.2f} ms, p95 {report['step_ms_p95']:.2f} ms")


if __name__ == "__main__":
    guarded(main)
