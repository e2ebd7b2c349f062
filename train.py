"""Train a policy, a simulator or a view planner and judge it.

python train.py [env=...] [memory=...] [key=value ...]                    a policy; all keys: trace_il/config.py
python train.py sim=eqcollide [env=soft_bodies_2d] [key=value ...]        a simulator; all keys: trace_il/sim_config.py
python train.py view=graph_distillation [env=view_planning] [key=value ...]  all keys: trace_il/views/config.py

Data are made if they are missing; the run can be interrupted and the same command continues it.
`python train.py -m memory=none,gru,trace` compares memories, `python train.py -m sim=eqcollide,gns` simulators.
"""

import sys

from trace_il.cli import run_program
from trace_il.config import RunConfig, TrainConfig
from trace_il.views.config import ViewRunConfig


def main(config: RunConfig) -> str:
    if isinstance(config, TrainConfig):
        from trace_il.pipeline import main_job

        return str(main_job(config))
    if isinstance(config, ViewRunConfig):
        from trace_il.views.pipeline import view_job

        return str(view_job(config))
    from trace_il.sim_pipeline import simulator_job

    return str(simulator_job(config))


if __name__ == "__main__":
    groups = {word.split("=")[0] for word in sys.argv[1:]}
    run_program(main, "train_simulator" if "sim" in groups else "train_views" if "view" in groups else "train")
