"""The long experiments are not run here, but what they are made of is, on the small run of the session."""

import argparse
import dataclasses
import importlib.util
import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT, program
from hydra import compose, initialize_config_dir
from rich.console import Console

sys.path.insert(0, str(ROOT / "experiments"))
import common
import report

from trace_il.cli import checked, register
from trace_il.diagnostics import LinearProbe, transforms
from trace_il.scores import write_results
from trace_il.signature import prefix_signature
from trace_il.views.config import ViewPlanningConfig


def load(name: str) -> ModuleType:
    path = ROOT / f"experiments/{name}/run.py"
    spec = importlib.util.spec_from_file_location(f"experiment_{name}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", [path.parent.name for path in sorted((ROOT / "experiments").glob("*/run.py"))])
def test_can_be_imported_and_is_in_the_list(name):
    assert callable(load(name).main)
    assert f"`{name}/run.py" in (ROOT / "experiments/README.md").read_text()


KEY = ("arm", "seed")
RUN = [name for name in report.REPORTS if (ROOT / "experiments" / name / "results").exists()]


@pytest.mark.parametrize("name", RUN)
def test_results_make_a_table_and_a_plot(name):
    contents = report.read(ROOT / "experiments" / name / "results")
    table, plot = report.REPORTS[name]
    assert contents
    for about in contents:
        assert table(about).count("\n| ") > 1 and "commit" in about["source"]
    assert plot(contents).axes


def test_every_case_of_the_tables_is_a_run_of_its_own():
    tables = load("tables")
    names = {}
    for table in ("main", "memories", "ablations"):
        for case in tables.cases(table, [0, 1]):
            assert names.setdefault(case.name, case.overrides) == case.overrides
            assert "/" not in case.name and "," not in case.name
    assert len(names) > 100


def test_what_is_collected_is_what_the_runs_of_the_tables_need(monkeypatch):
    tables, collected = load("tables"), {}
    register()
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        for setting, words in common.SETTINGS.items():
            monkeypatch.setattr(
                common, "program", lambda _, *given: collected.update(data=compose("collect", [*given]))
            )
            common.collect(words)
            own = [case for table in ("main", "memories", "ablations") for case in tables.cases(table, [0])]
            own = [case for case in own if case.setting == setting]
            for case in [case for case in own if setting == "two bits" or case.memory == "trace"]:
                config = checked(compose("train", case.overrides))
                there = checked(collected["data"])
                assert (config.env, config.data.seed) == (there.env, there.data.seed)
                assert config.data.episodes <= there.data.episodes


def test_simulators_are_trained_judged_and_timed(tmp_path, monkeypatch):
    simulators, cost = load("simulators"), importlib.import_module("simulators.cost")
    cases = [simulators.Case(arm, dim, seed) for arm in simulators.ARMS for dim in (2, 3) for seed in (0, 1)]
    assert len({case.name for case in cases}) == len(cases)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(simulators, "ROOT", tmp_path)
    short = {name: dataclasses.replace(own, scenes=1, frames=24) for name, own in simulators.tests(2).items()}
    monkeypatch.setattr(simulators, "tests", lambda dim: {name: short[name] for name in ("as trained", "2x bodies")})
    scenes = simulators.test_scenes(2, Console(quiet=True))

    def train(name: str, overrides: list[str], jobs: int) -> dict:
        quick = ["data.trajectories=2", "data.validation=1", "data.frames=12", "evaluation.scenes=1", "wandb=off"]
        quick += ["trainer.epochs=1", "trainer.steps_per_epoch=2", "trainer.unroll=[2]"]
        words = [word for word in overrides if not word.startswith("trainer.")]
        program("train.py", *words, *quick, f"name={name}", cwd=tmp_path)
        return json.loads((tmp_path / f"runs/{name}/summary.json").read_text())

    monkeypatch.setattr(simulators, "train", train)
    monkeypatch.setattr(simulators, "last_change", lambda *paths: "abc")
    monkeypatch.setattr(simulators, "HERE", tmp_path)
    case, tuned = (
        simulators.Case("EqCollide-style", 2, 0),
        simulators.Case("GNS", 2, 0, tuned=next(iter(simulators.GRAPHS))),
    )
    with pytest.raises(SystemExit, match="speed --dims 2"):
        _ = case.overrides
    monkeypatch.setattr(cost, "REPEATS", 1)
    speeds = cost.speed_rows({own.pace: own.words for own in (case, tuned)}, scenes["as trained"])
    assert all(0 < row["cpu_seconds_per_step"] < 60 for row in speeds)
    write_results(tmp_path / "results/speed-2d.json", [0], speeds)
    once, longer = (dataclasses.replace(case, longer=n).overrides[-1].split("=") for n in (1, 4))
    assert once[0] == "trainer.steps_per_epoch" and int(longer[1]) == pytest.approx(4 * int(once[1]), rel=0.2)
    rows = simulators.evaluate(case, scenes, 1, Console(quiet=True))
    assert [row["test"] for row in rows] == ["as trained", "2x bodies"] and rows[0]["fit_seconds"] > 0
    assert rows[0]["equivariance_float64"] < 1e-10 < rows[0]["equivariance_float32"] < 1e-5
    curve = simulators.curve(case)
    for name, value in (("FRAMES", 2), ("REPEATS", 1), ("BODIES", (1, 2)), ("BATCHES", (1, 4)), ("SPACINGS", (1.0,))):
        monkeypatch.setattr(cost, name, value)
    times = cost.cost_rows(2, {"EqCollide-style": tmp_path / f"runs/{case.name}/simulator.pt"})
    assert {row["sim"] for row in times} >= {"EqCollide-style", "MuJoCo"}
    assert all(row["ms_per_scene_frame"] > 0 for row in times)
    table, plot = report.REPORTS["simulators"]
    contents = [{"rows": part} for part in (rows, curve, times)]
    contents.append({"rows": speeds})
    assert all(table(about).count("\n| ") > 1 for about in contents) and plot(contents).axes


def test_view_planners_are_compared_with_chance_and_the_oracle(tmp_path, monkeypatch):
    views = load("view_planning")
    cases = [views.Case(arm, seed) for arm in (*views.ARMS, *views.ABLATIONS) for seed in (0, 1)]
    assert len({case.name for case in cases}) == len(cases)
    monkeypatch.setattr(views, "ROOT", tmp_path)
    monkeypatch.setattr(views, "TEST_EPISODES", 6)
    monkeypatch.setattr(views, "ViewPlanningConfig", lambda: ViewPlanningConfig(test_rooms=1, image_size=32))
    chance, oracle = views.bounds(0)
    assert oracle["success"] == 1 > chance["success"] and oracle["episodes"] == 6
    table, plot = report.REPORTS["view_planning"]
    assert "| oracle | 1 | 100.0 [" in table({"rows": [chance, oracle]})
    assert plot([{"rows": [chance, oracle]}]).axes


def test_transfer_is_compared_by_demonstrations():
    transfer = load("transfer")
    cases = [case for part in ("push", "sort") for case in transfer.cases(part, [0, 1])]
    assert len({case.name for case in cases}) == len(cases) == 24
    rows = [
        {"task": "push", "policy": f"from {backend}", "memory": "none", "demonstrations": size, "seed": 0,
         "success": success + shift + off, "branch_accuracy": 0.0, "judged_in": judge}
        for backend, shift in (("mujoco", 0.0), ("learned", -0.05))
        for judge, off in (("mujoco", 0.0), ("learned", 0.02))
        for size, success in ((10, 0.2), (20, 0.5), (40, 0.9))
    ]  # fmt: skip
    table, plot = report.REPORTS["transfer"]
    text = table({"rows": rows})
    assert "mean gap 5.0 points, largest 5.0; rank correlation over 3 numbers of demonstrations 1.00" in text
    assert "6 policies, each judged in both: mean gap 2.0 points, largest 2.0; rank correlation 1.00" in text
    assert plot([{"rows": rows}]).axes


@pytest.fixture(scope="module")
def small(workplace):
    diagnostics = load("diagnostics")
    diagnostics.ROOT = workplace
    trained = diagnostics.load(SimpleNamespace(name="small", setting="two bits"))
    return diagnostics, trained


def test_changed_paths_are_compared_at_the_same_place():
    """All but the reversal are the same route, so that a signature that is exact sees hardly a difference."""
    for length in (280, 285):
        turn = torch.linspace(0, 6, length)
        path = torch.stack([turn.sin(), turn.cos(), turn / 6], dim=1)
        ticks = torch.arange(0, length, 5)
        changes = transforms(path, ticks, torch.ones(3), np.random.default_rng(0))
        exact = prefix_signature(path, 3)[ticks]
        assert len(changes["time resampling"].at) == len(torch.arange(0, round(1.5 * length), 5))
        for name, change in changes.items():
            other = prefix_signature(change.path, 3)[change.at][change.nearest(len(ticks))]
            difference = float((other - exact).norm() / exact.norm())
            assert difference > 0.5 if name == "order reversal" else difference < 0.05, (name, difference)


@torch.no_grad()
def test_diagnostics_of_a_run(small):
    diagnostics, trained = small
    options = argparse.Namespace(episodes=2)
    assert {row["phase"] for row in diagnostics.probe(trained, options)} == {0, 1, 2, 3}
    kinds = diagnostics.interventions(trained, options)
    assert [row["intervention"] for row in kinds] == ["untouched", "reset", "freeze", "swap"]
    assert all(row["own_branch"] + row["wrong_branch"] <= 1 for row in kinds)
    for row in diagnostics.routes(trained, options):
        assert -100 <= row["route_similarity"] <= 100.01 and row["episodes"] > 0


@torch.no_grad()
def test_linear_probe_reads_what_is_there(tmp_path):
    torch.manual_seed(0)
    cue = torch.arange(200) % 2
    given = torch.randn(200, 8)
    given[:, 2] = 2 * cue.float() - 1
    probe = LinearProbe.fit(given[:100], cue[:100])
    probe.save(tmp_path / "probe.pt")
    assert (LinearProbe.load(tmp_path / "probe.pt")(given[100:]).argmax(-1) == cue[100:]).float().mean() > 0.98
    blind = LinearProbe.fit(given[:100, 3:], cue[:100])
    assert (blind(given[100:, 3:]).argmax(-1) == cue[100:]).float().mean() < 0.7


def test_a_results_file_keeps_what_was_measured_before(tmp_path):
    """Rows of earlier measurements stay with their provenance, unless they were measured again."""
    path = tmp_path / "results/table.json"
    path.parent.mkdir()
    write_results(path, [0, 1], [{"arm": "a", "seed": 0, "value": 1}, {"arm": "a", "seed": 1, "value": 2}], KEY)
    write_results(path, [1], [{"arm": "a", "seed": 1, "value": 3}], KEY)
    write_results(path, [1], [{"arm": "a", "seed": 1, "value": 4}, {"arm": "b", "seed": 1, "value": 5}], KEY)
    measured = json.loads(path.read_text())
    assert [[row["value"] for row in own["rows"]] for own in measured] == [[1], [4, 5]]
    assert [own["seeds"] for own in measured] == [[0, 1], [1]]
    assert [row["value"] for row in report.read(path.parent)[0]["rows"]] == [1, 4, 5]


def test_policies_are_compared_on_the_scenes_that_they_share():
    rng = np.random.default_rng(0)
    easy = rng.random(50) < 0.5  # scenes that both decide
    ours = [{"seed": seed, "each_branch": [1] * 50} for seed in (0, 1)]
    other = [{"seed": seed, "each_branch": [int(own) for own in easy]} for seed in (0, 1)]
    gain, low, high = (float(word.strip("[],")) for word in report.ahead(ours, other).split())
    assert gain == pytest.approx(100 * (1 - easy.mean()), abs=0.1) and low < gain < high
    assert gain - low < 17  # two runs on 50 scenes are no more than 50 scenes
    assert gain - low > 10
    assert report.ahead(ours, [{"seed": 5, "each_branch": [0] * 50}]) == ""  # another seed
    assert report.ahead(ours[:1], [{"seed": 0}]) == ""  # outcomes were not kept
