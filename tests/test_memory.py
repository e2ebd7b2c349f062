import math

import pytest
import torch

from trace_il.agent import windows
from trace_il.memory import MEMORIES, Evidence, Memory, TraceMemory
from trace_il.memory.recall import RecallHead, thumbnails
from trace_il.memory.teacher import AttentionTeacher

B, N, E, Q = 3, 9, 12, 10


def evidence(ticks: int = N, seed: int = 0) -> Evidence:
    torch.manual_seed(seed)
    return Evidence(torch.randn(B, ticks, E), torch.randn(B, ticks, Q))


def make(name: str, **options) -> Memory:
    memory = MEMORIES[name](E, Q, width=16, **options).eval()
    for place in range(min(memory.demonstrations, 3)):
        given = evidence(20, seed=10 + place)
        memory.keep(place, place, Evidence(given.content[0], given.address[0]))
    return memory


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in MEMORIES), ("trace", {"gate_span": 3.0})])
def test_scan_equals_repeated_step(name, options):
    torch.manual_seed(1)
    memory = make(name, **options)
    given = evidence()
    scanned = memory.scan(given)
    state = memory.init_state(given.content)
    assert not state.any()
    for t in range(N):
        state, readout = memory.step(state, Evidence(given.content[:, t], given.address[:, t]))
        for part, whole in zip(readout, scanned, strict=True):
            torch.testing.assert_close(part, whole[:, t])
        torch.testing.assert_close(readout.read_weights.sum(-1), torch.ones(B))
        torch.testing.assert_close(readout.routing.sum(-1), torch.ones(B))


@pytest.mark.parametrize("name", MEMORIES)
def test_is_causal(name):
    memory = make(name)
    given = evidence()
    changed = Evidence(given.content.clone(), given.address.clone())
    changed.content[:, 5:] = -changed.content[:, 5:]
    before, after = memory.scan(given).slots, memory.scan(changed).slots
    assert torch.equal(before[:, :5], after[:, :5])
    assert name == "none" or not torch.equal(before[:, 5:], after[:, 5:])


@pytest.mark.parametrize("name", MEMORIES)
def test_slots_stay_in_full_precision(name):
    memory, given = make(name), evidence()
    full = memory.scan(given)
    with torch.autocast("cpu", torch.bfloat16):
        half = memory.scan(Evidence(given.content.bfloat16(), given.address))
    assert name not in ("trace", "gru", "retrieval") or half.slots.dtype == torch.float32
    torch.testing.assert_close(half.slots.float(), full.slots, atol=0.05, rtol=0.05)


def test_no_memory_passes_nothing():
    memory = MEMORIES["none"](E, Q)
    readout = memory.scan(evidence())
    assert not readout.slots.any() and not readout.summary.any() and not readout.address.any()


def test_slots_become_different_and_routing_learns():
    """The known fault of unseparated slots: equal for ever, routing 1/K, no gradient into the routing keys."""
    torch.manual_seed(0)
    memory = TraceMemory(E, Q, slots=4, width=16, gate_bias=0.0)
    given = evidence(12)
    target = given.content[:, 2, :4]  # to be recalled at the end
    head = torch.nn.Linear(16, 4)
    optimiser = torch.optim.Adam([*memory.parameters(), *head.parameters()], 1e-2)
    for _ in range(30):
        readout = memory.scan(given)
        loss = (head(readout.summary[:, -1]) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert memory.routing_key.weight.grad.abs().max() > 1e-6
    assert memory.routing_query.weight.grad.abs().max() > 1e-6
    slots = memory.scan(given).slots[:, -1]
    assert (slots[:, 1:] - slots[:, :1]).abs().amax(-1).min() > 1e-3
    routing = memory.scan(given).routing
    entropy = -(routing * routing.log()).sum(-1).mean()
    assert entropy < 0.99 * math.log(4)


def test_slots_hold_their_content_over_an_episode():
    """At initialisation a slot keeps more than half of what it holds over 60 ticks."""
    torch.manual_seed(0)
    memory = TraceMemory(E, Q, slots=4, width=32)
    given = evidence(60)
    state = torch.ones(B, 4, 32)
    kept = torch.ones(B, 4)
    for t in range(60):
        state, readout = memory.step(state, Evidence(given.content[:, t], given.address[:, t]))
        kept = kept * (1 - readout.write_strength)
    assert kept.min() > 0.5, kept


def test_auxiliary_losses_ignore_padding():
    memory = TraceMemory(E, Q, width=16, balance_weight=1.0, entropy_weight=1.0, consistency_weight=1.0)
    given = evidence()
    valid = torch.ones(B, N, dtype=torch.bool)
    valid[1, 4:] = False
    changed = Evidence(given.content.clone(), given.address.clone())
    changed.content[1, 4:] += 3
    for name, value in memory.auxiliary_losses(memory.scan(given), valid).items():
        torch.testing.assert_close(value, memory.auxiliary_losses(memory.scan(changed), valid)[name])


def test_teacher_is_causal_and_has_the_memorys_shape():
    memory = TraceMemory(E, Q, slots=4, width=16)
    teacher = AttentionTeacher(E, Q, 4, 16)
    given = evidence()
    ours, taught = memory.scan(given), teacher(given, given.address)
    assert [x.shape for x in ours] == [x.shape for x in taught]
    changed = Evidence(given.content.clone(), given.address)
    changed.content[:, 6:] += 1
    assert torch.equal(teacher(changed, given.address).slots[:, :6], taught.slots[:, :6])


@pytest.mark.parametrize("name", ["trace", "gru"])
def test_a_recurrent_memory_begins_by_keeping(name):
    """Of what the first tick left much is there 20 ticks later, or training would never hear of it; alike for both."""
    torch.manual_seed(0)
    memory, given, other = MEMORIES[name](E, Q, width=64), evidence(21), evidence(21)
    other.content[:, 0] += 1
    trace = (memory.scan(given).slots - memory.scan(other).slots).flatten(2).norm(dim=-1).mean(0)
    assert 0.3 < trace[-1] / trace[0] < 1


def test_channels_with_gates_of_their_own_forget_at_their_own_pace():
    memory = TraceMemory(E, Q, slots=1, width=16, gate_bias=-3.0, gate_span=3.0)
    given, other = evidence(30), evidence(30)
    other.content[:, 0] += 1
    trace = (memory.scan(given).slots - memory.scan(other).slots)[:, :, 0].abs().mean(0)  # (N, 16)
    kept = trace[-1] / trace[0]
    assert kept[0] > 0.5 and kept[-1] < 0.1


def test_recall_redraws_what_only_the_memory_holds():
    torch.manual_seed(0)
    images = torch.zeros(16, 6, 2, 16, 16, 3, dtype=torch.uint8)
    images[:, 1] = torch.randint(0, 256, (16, 1, 1, 1, 3)).byte()  # one colour an episode, seen at tick 1 alone
    content = torch.cat([thumbnails(images, 1).flatten(2), torch.randn(16, 6, 6)], -1)
    given = Evidence(content, torch.eye(6).repeat(16, 1, 1))
    valid = torch.ones(16, 6, dtype=torch.bool)
    memory, head = TraceMemory(12, 6, slots=2, width=32, gate_bias=0.0), RecallHead(2, 32, 6, cameras=2, size=4)
    optimiser = torch.optim.Adam([*memory.parameters(), *head.parameters()], 3e-3)
    for _ in range(1200):
        optimiser.zero_grad()
        loss = head.loss(memory.scan(given), given, images, valid)
        loss.backward()
        optimiser.step()
    recalled = head(memory.scan(given).slots[:, -1], given.address[:, 1])
    seen = thumbnails(images[:, 1], 4)
    spread = (seen.mean(0) - seen).square().mean()
    assert (recalled - seen).square().mean() < 0.2 * spread


def test_a_slot_is_asked_for_the_tick_of_which_it_holds_most():
    torch.manual_seed(0)
    head, slots, address = RecallHead(2, 8, 6, cameras=2, size=4), torch.randn(6, 2, 8), torch.eye(6)
    strength = torch.zeros(6, 2)
    strength[1, 0], strength[3, 0], strength[4, 0] = 1.0, 0.3, 0.4  # of tick 1 there is left 0.42, of 3 0.18, of 4 0.4
    strength[2, 1], strength[4, 1] = 0.5, 0.9
    shown = head.remembered(slots, address, strength)
    assert shown.shape == (6, 2, 2, 4, 4, 3)
    for tick, slot, asked in ((1, 0, 1), (5, 0, 1), (3, 1, 2), (5, 1, 4)):
        alone = head(slots[tick : tick + 1, slot : slot + 1], address[asked : asked + 1])
        assert torch.allclose(shown[tick, slot], alone[0], atol=1e-6)
        other = head(slots[tick : tick + 1, slot : slot + 1], address[5:])
        assert not torch.allclose(shown[tick, slot], other[0], atol=1e-4)


def test_ablations_of_trace():
    given = evidence()
    unrouted, mean = TraceMemory(E, Q, 4, 16, routed=False), TraceMemory(E, Q, 4, 16, mean_read=True)
    assert (unrouted.scan(given).routing == 0.25).all() and (mean.scan(given).read_weights == 0.25).all()
    assert (unrouted.scan(given).read_weights != 0.25).any() and (mean.scan(given).routing != 0.25).any()
    signature_only = MEMORIES["none"](E, Q, address=True).scan(given)
    assert torch.equal(signature_only.address, given.address) and not signature_only.summary.any()


def test_transformer_window_forgets_and_keeps():
    """Only every stride-th tick enters, and what has left the window has no influence."""
    memory = MEMORIES["transformer"](E, Q, slots=2, width=16, stride=3)
    given = evidence(14)
    before = memory.scan(given)
    for tick, last in ((0, 5), (3, 8), (4, 4)):  # tick 4 does not enter: only its own readout sees it
        changed = Evidence(given.content.clone(), given.address)
        changed.content[:, tick] += 1
        differs = (memory.scan(changed).summary != before.summary).any(-1).any(0)
        assert differs.nonzero().flatten().tolist() == list(range(tick, last + 1))


def test_lru_writes_the_least_recently_used_slot():
    memory = MEMORIES["lru"](E, Q, slots=4, width=16)
    torch.nn.init.constant_(memory.gate.bias, -20.0)  # all into the least used
    torch.nn.init.zeros_(memory.gate.weight)
    written = memory.scan(evidence(4)).write_strength
    torch.testing.assert_close(written.amax(-1), torch.ones(B, 4))
    assert all(len(set(row.tolist())) == 4 for row in written.argmax(-1))  # four ticks, four slots


def test_bad_input():
    with pytest.raises(ValueError, match="multiple of heads, got 16 and 3"):
        MEMORIES["transformer"](E, Q, width=16, heads=3)
    with pytest.raises(ValueError, match="usage_decay must lie between 0 and 1, got 1"):
        MEMORIES["lru"](E, Q, usage_decay=1.0)
    with pytest.raises(ValueError, match="identity_scale must be > 0, got 0"):
        TraceMemory(E, Q, identity_scale=0.0)
    with pytest.raises(ValueError, match="tau must be > 0"):
        TraceMemory(E, Q, tau=0.0)
    with pytest.raises(ValueError, match="gate_span must not be negative, got -1"):
        TraceMemory(E, Q, gate_span=-1)
    with pytest.raises(ValueError, match="slots=0"):
        TraceMemory(E, Q, slots=0)


def test_retrieval_finds_the_demonstration_of_the_same_past_but_in_training_not_itself():
    torch.manual_seed(0)
    memory = MEMORIES["retrieval"](E, Q, width=E + Q, slots=1, demonstrations=3, entries=N, ahead=2)
    for layer in (memory.query, memory.key):
        torch.nn.init.eye_(layer.weight)
    given = evidence()
    for place in range(B):
        memory.keep(place, 10 + place, Evidence(given.content[place], given.address[place]))

    def found() -> torch.Tensor:
        slots = memory.scan(given).slots.squeeze(2)  # (B, N, d)
        return torch.cdist(slots, memory.value(memory.bank_values).expand(B, -1, -1)).argmin(-1) // N

    own = torch.arange(B).unsqueeze(1)
    assert (memory.eval() and found() == own).float().mean() > 0.9
    memory.train().leave_out(torch.tensor([10, 11, 12]))
    assert not (found() == own).any()
    state = memory.init_state(given.content)
    _, readout = memory.step(state, Evidence(given.content[:, 0], given.address[:, 0]))
    nearest = torch.cdist(readout.slots, memory.value(memory.bank_values).expand(B, -1, -1)).argmin(-1) // N
    assert not (nearest == own).any()
    with pytest.raises(ValueError, match="3 scenes were left out, but 1 episodes"):
        memory.scan(Evidence(given.content[:1], given.address[:1]))


def test_scan_budget_keeps_the_first_tick_and_the_last_ones():
    index, last = windows(6, 3, torch.device("cpu"))
    assert index.tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5]]
    assert index.gather(1, last.unsqueeze(1))[:, 0].tolist() == list(range(6))
