"""The long experiments are not run here, but what they are made of is, on the small run of the session."""

import argparse
import importlib.util
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT

sys.path.insert(0, str(ROOT / "experiments"))
import report

from trace_il.diagnostics import LinearProbe, transforms
from trace_il.signature import prefix_signature


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
        for name, (changed, at) in changes.items():
            other = prefix_signature(changed, 3)[at]
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
