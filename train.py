"""Train a policy, a simulator or a view planner and judge it.

python train.py [env=delayed_evidence] [env.task=medicine] [memory=trace] [policy=act] [KEY=VALUE ...]
    a policy. env=corridor|delayed_evidence|push_soft|push_soft_arm|sort_soft|gym|recorded,
    memory=trace|gru|transformer|lru|retrieval|none, policy=act|diffusion, profile=reference (sizes of the paper);
    all keys: trace_il/config.py and trace_il/env_config.py
python train.py sim=eqcollide [env=soft_bodies_2d|soft_bodies_3d] [KEY=VALUE ...]
    a simulator of soft bodies; sim=eqcollide|gns|meshgraphnets|egnn|segno|twin|..., all keys: trace_il/sim_config.py
python train.py view=graph_distillation [env=view_planning] [KEY=VALUE ...]
    a view planner; all keys: trace_il/views/config.py

--cfg job prints all keys with their values. Data are made if they are missing; the run can be interrupted and the same
command continues it. -m compares: python train.py -m memory=none,gru,trace, or -m sim=eqcollide,gns.
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
    run_program(main, "train_simulator" if "sim" in groups else "train_views" if "view" in groups else "train", __doc__)
