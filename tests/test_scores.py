"""What is said of rollouts, from hand-made ones."""

import io

import numpy as np
import pytest
from rich.console import Console

from trace_il.rollout import Rollout
from trace_il.scores import bootstrap_error, score, score_table, wilson_interval


def test_intervals():
    low, high = wilson_interval(48, 50)
    assert (low, high) == pytest.approx((0.8654, 0.9890), abs=1e-3)
    assert wilson_interval(0, 0) == (0.0, 1.0) and wilson_interval(50, 50)[1] == 1.0
    values = np.random.default_rng(1).normal(size=400)
    assert bootstrap_error(values) == pytest.approx(values.std() / 20, rel=0.1)


def ended(progress: float, branch: int | None, success: bool, cue_step: int = 3, ood: bool = False) -> Rollout:
    return Rollout(0, 0, 4, progress, success, branch, [90.0, 1.0, 2.0, 3.0], [0] * 4, cue_step, ood)


def test_score_counts_what_it_says():
    whole, wrong, lost = ended(1, 1, True), ended(0.75, 0, False), ended(0.25, -1, False, cue_step=-1)
    dropped, left = ended(0.75, 1, False), ended(0.5, -1, False, ood=True)
    out = score([whole, wrong, lost, dropped, left])
    assert (out["episodes"], out["progress"]) == (5, pytest.approx(65.0))
    assert (out["branch_accuracy"], out["branch_reached"]) == (0.4, 0.6)
    assert out["branch_accuracy_reached"] == pytest.approx(2 / 3) and out["success"] == 0.2
    assert out["branch_interval"] == list(wilson_interval(2, 5))
    assert out["success_interval"] == list(wilson_interval(1, 5))
    assert (out["cue_found"], out["cue_steps"], out["ood"]) == (0.8, [3, 3, -1, 3, 3], 0.2)
    assert (out["each_branch"], out["each_progress"]) == ([1, 0, -1, 1, -1], [100, 75, 25, 75, 50])
    assert (out["policy_ms_p50"], out["policy_ms_p95"]) == (2.0, 3.0)  # without the first step, which compiles


def test_where_there_is_no_branch_nothing_is_said_of_it():
    out = score([ended(1, None, True), ended(0, None, False)])
    assert out["success"] == 0.5 and out["branch_accuracy"] is out["branch_interval"] is out["branch_reached"] is None
    text = io.StringIO()
    Console(file=text, width=200).print(score_table({"policy": out}, ""))
    (line,) = [line for line in text.getvalue().splitlines() if "policy" in line and "50 %" in line]
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells[3:5] == ["-", "-"]
    unreached = score([ended(0, -1, False)])
    assert unreached["branch_accuracy"] == 0 and unreached["branch_accuracy_reached"] is None
