"""The demonstrations of a run: where they are, how many it uses, and collecting those that are missing."""

from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from ..config import CollectConfig, TrainConfig
from ..env_config import env_label, env_options
from ..environment import make_env
from ..errors import UserError
from ..files import only_writer
from ..run_folder import first_difference
from .collect import CollectSpec, collect, read_record
from .lerobot import read_info


def dataset_root(config: TrainConfig | CollectConfig) -> tuple[Path, CollectSpec]:
    """Where the demonstrations of a configuration are, and what they consist of."""
    options = env_options(config.env, collecting=True)
    spec = CollectSpec(config.env.id, options, config.data.seed, config.data.disturbance)
    if config.data.root is not None:
        return Path(config.data.root), spec
    return Path("data") / f"{env_label(config.env.id, options.get('task'))}-{spec.digest()}", spec


def collect_missing(config: TrainConfig | CollectConfig, console: Console) -> Path:
    """Collect the demonstrations that are not there yet, with a progress bar. A recorded dataset is used as it is.

    Raises:
        UserError: `data.root` holds demonstrations of something else.
    """
    root, spec = dataset_root(config)
    _check_identity(config, root, spec)
    if missing(config, root):
        note = f"another process collects demonstrations in {root}; waiting for it"
        with only_writer(root, lambda: console.print(note)), Progress(console=console, transient=True) as bar:
            if lacking := missing(config, root):  # nobody else has collected them meanwhile
                wanted, parallel = config.data.episodes, config.parallel
                job = bar.add_task(f"demonstrations -> {root}", total=wanted, completed=wanted - lacking)
                for present in collect(root, spec, wanted, parallel.workers, parallel.ray_address):
                    bar.update(job, completed=present)
                console.print(f"collected {lacking} demonstrations in {root}")
    return root


def missing(config: TrainConfig | CollectConfig, root: Path) -> int:
    """How many demonstrations are to be collected; none into a dataset that somebody recorded."""
    here = read_info(root)["total_episodes"] if (root / "meta/info.json").exists() else 0
    own = here == 0 or (root / "meta/trace_il.json").exists()
    return max(0, config.data.episodes - here) if own else 0


def _check_identity(config: TrainConfig | CollectConfig, root: Path, spec: CollectSpec) -> None:
    """Demonstrations that were collected before must be of this environment; for collect.py, of this seed too."""
    record = root / "meta/trace_il.json"
    if config.data.root is None or not record.exists():
        return
    found, asked = read_record(root), spec.identity
    free = {"seed", "disturbance"} if isinstance(config, TrainConfig) else set()
    for key in sorted((set(found) | set(asked)) - free):
        if found.get(key) != asked.get(key):
            difference = first_difference(key, found.get(key), asked.get(key))
            raise UserError(
                f"data.root={root} was collected with {difference}; set that, or choose another data.root "
                "(evaluate.py judges a policy under other env.KEY=...)"
            )


def shown_seeds(config: TrainConfig) -> range:
    """Seeds of the scenes that the demonstrations of a run may show; none of a dataset that somebody recorded."""
    root, data = config.data.root, config.data
    if root is None:
        return range(data.seed, data.seed + data.episodes)
    if not (Path(root) / "meta/trace_il.json").exists():
        return range(0)
    first = int(read_record(Path(root))["seed"])
    return range(first, first + read_info(Path(root))["total_episodes"])


def episode_count(config: TrainConfig, root: Path) -> int:
    """How many episodes a run uses: `data.episodes`, but no more than a recorded dataset has."""
    own = (root / "meta/trace_il.json").exists()
    return config.data.episodes if own else min(config.data.episodes, read_info(root)["total_episodes"])


def episodes_per_scene(root: Path, config: TrainConfig) -> int:
    """How many consecutive episodes of a dataset show one scene: as many as there are cues, if collected here."""
    if not (root / "meta/trace_il.json").exists():
        return 1
    env = make_env(config.env.id, env_options(config.env))
    env.close()
    return int(getattr(env.unwrapped, "cue_values", 1))
