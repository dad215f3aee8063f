"""The collector on pools made by hand: each number against one that is known, and text, JSON and exit codes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

import onca
from onca.audit import Audit, Finding, alarms, audit_embeddings, exit_code, read_audit, text, write_audit
from onca.audit.collapse import spread
from onca.audit.embeddings import twins
from onca.audit.interval import mean, ratio, wilson
from onca.audit.sight import sight
from onca.method import as_method

B, N, D = 24, 300, 8


def rows(count: int, dim: int = D, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seen(*pools: onca.Pool, method: str = "infonce", duplicates: Tensor | None = None) -> dict[str, Finding]:
    audit = Audit(queries=B, duplicates=duplicates)
    for number, pool in enumerate(pools):
        audit.see(pool, method, step=number + 1)
    return {finding.name: finding for finding in audit.findings()}


def plain(**more: object) -> onca.Pool:
    query = rows(B, seed=1)
    return onca.pool(query, query + 0.3 * rows(B, seed=2), rows(N, seed=3), 0.5, **more)  # type: ignore[arg-type]


# --- intervals -------------------------------------------------------------------------------------------------------


def test_wilson_is_that_of_the_textbook() -> None:
    found = wilson(10, 100)
    assert found == pytest.approx((0.1, 0.0552291, 0.1743657), abs=1e-6)
    assert wilson(0, 0) == (0, 0, 1) and wilson(64, 64).high == 1 and wilson(0, 64).low == 0


def test_intervals_of_ratios_hold_the_truth_as_often_as_they_say() -> None:
    hits = 0
    for seed in range(300):
        draw = torch.Generator().manual_seed(seed)
        size = torch.randint(1, 20, (80,), generator=draw).double()
        share = torch.rand(80, generator=draw, dtype=torch.float64) * 0.4  # entries of one query are alike
        found = ratio(share * size, size)
        hits += found.low <= 0.2 <= found.high
    assert 0.92 <= hits / 300 <= 0.98
    assert math.isnan(ratio(torch.zeros(3), torch.zeros(3)).number) and mean(torch.tensor([2.0, 4.0])).number == 3


# --- who the negatives were ------------------------------------------------------------------------------------------


def test_self_hits_to_the_bit_and_by_index() -> None:
    query, key = rows(B, seed=1), rows(B, seed=2)
    negatives = torch.cat([rows(N, seed=3), key[:5]])
    found = seen(onca.pool(query, key, negatives))["self-hits"]
    assert found.outcome == "alarm" and found.number == 5 / B and f"5 of {B}" in found.sentence
    index = torch.cat([torch.full((N,), -1), torch.arange(5)])
    masked = onca.pool(query, key, negatives, index=torch.arange(B), negative_index=index)
    assert seen(masked)["self-hits"].outcome == "fine"
    older = replace(plain(negative_index=torch.arange(N) % 6), index=torch.arange(B))  # nobody masks what stands there
    found = seen(older)["self-hits"]
    assert found.outcome == "alarm" and found.number == 6 / B and "older keys" in found.sentence


def test_positives_of_another_image_by_index_and_by_rank() -> None:
    pool = plain(index=torch.arange(B))
    link = replace(pool.positives.links[0], index=torch.arange(B).roll(1)[:, None])
    found = seen(replace(pool, positives=replace(pool.positives, links=(link,))))["wrong positives"]
    assert found.outcome == "alarm" and found.number == 1
    query = [rows(B, seed=seed) for seed in range(20)]
    keys = [q + 0.5 * rows(B, seed=100 + seed) for seed, q in enumerate(query)]
    right = [onca.pool(q, k, rows(N)) for q, k in zip(query, keys, strict=True)]
    assert seen(*right)["wrong positives"].outcome == "fine"
    wrong = [onca.pool(q, k.roll(-7, 0), rows(N)) for q, k in zip(query, keys, strict=True)]
    found = seen(*wrong)["wrong positives"]
    assert found.outcome == "alarm" and f"the key {B - 7} places after" in found.sentence


def test_repeats() -> None:
    found = seen(plain(index=torch.arange(B) + N, negative_index=torch.arange(N) // 3))["repeats"]
    assert found.outcome == "note" and found.number == pytest.approx(2 / 3) and "3 times" in found.sentence
    query, twice = rows(B, seed=1), rows(N, seed=3)
    found = seen(onca.pool(query, query, torch.cat([twice, twice])))["repeats"]
    assert found.outcome == "alarm" and found.number == 0.5


def test_near_duplicates_among_the_hardest() -> None:
    """The first 10 images have a copy, B places further on in the memory, which is all that is near to them."""
    query = rows(B, seed=1)
    negatives = torch.cat([query[:10] + 0.01, rows(N, seed=3)])
    groups = torch.arange(B + 10 + N)
    groups[B : B + 10] = torch.arange(10)
    pool = onca.pool(query, query, negatives, index=torch.arange(B), negative_index=torch.arange(10 + N) + B)
    found = seen(pool, duplicates=groups)["near-duplicates"]
    assert found.outcome == "alarm" and found.number == 10 / B
    assert found.details["hardest 0.1 %"][0] == pytest.approx(10 / B)  # one entry of each query is the hardest 0.1 %


@pytest.mark.parametrize("method", ["infonce", "chain(drop(hardest(1)), infonce)"])
def test_same_label_by_difficulty_counts_what_the_method_left(method: str) -> None:
    label, ids = torch.arange(B) % 4, torch.arange(N) % 4
    pool = plain(label=label, negative_label=ids)
    found = seen(pool, method=method)["same label"]
    score = normalize(pool.negatives.query, dim=1) @ normalize(rows(N, seed=3), dim=1).T
    order = score.argsort(1, descending=True)[:, 0 if method == "infonce" else 3 :]
    same = ids[order] == label[:, None]
    edge = [0, 1, 15, same.shape[1]]  # 0.1 % and 5 % of 300, and of 297
    shares = [float(same[:, edge[k] : edge[k + 1]].double().mean()) for k in range(3)]
    assert [number for number, _, _ in found.details.values()] == pytest.approx(shares)


def test_masses_by_group_are_those_of_the_gradient() -> None:
    label, ids = torch.arange(B) % 4, torch.arange(N) % 4
    found = seen(plain(label=label, negative_label=ids))["loss mass"]
    query, negatives = normalize(rows(B, seed=1), dim=1), normalize(rows(N, seed=3), dim=1)
    positive = normalize(rows(B, seed=1) + 0.3 * rows(B, seed=2), dim=1)
    score = (query @ negatives.T).requires_grad_()
    own = (query * positive).sum(1, keepdim=True)
    torch.logsumexp(torch.cat([own, score], 1) / 0.5, 1).sum().backward()
    same = ids[None] == label[:, None]
    assert score.grad is not None
    assert found.details["gradient: same class"][0] == pytest.approx(float(score.grad[same].sum() / score.grad.sum()))
    weight = (score.detach() / 0.5).softmax(1)
    assert found.details["mass: same class"][0] == pytest.approx(float(weight[same].sum() / B))


@pytest.mark.parametrize(
    "method",
    ["infonce", "triplet(0.9)", "chain(keep(hardest(5)), infonce)", "chain(harden(0.5), infonce)", "debiased(0.01)",
     "chain(attract(nearest(2)), mass)", "total((1, infonce), (2, chain(keep(window(50, 90)), infonce)))",
     "chain(drop(hardest(5), refill=True), infonce)"],
)  # fmt: skip
def test_pushes_are_the_slopes_of_each_query_s_loss(method: str) -> None:
    """Against one backward pass a query, in which keys are projected on what a score can change them by."""
    query, negatives = rows(6, seed=1), rows(80, seed=3).requires_grad_()
    reserve = 20 if "refill" in method else 0
    pool = onca.pool(query.clone().requires_grad_(), query + 0.3 * rows(6, seed=2), negatives, 0.5, reserve=reserve)
    losses = as_method(method)(pool)
    look = sight(pool, as_method(method), 1, None, 6, None)
    assert look.pushes is not None
    _, found = look.pushes
    for number in range(6):
        (slope,) = torch.autograd.grad(losses[number], negatives, retain_graph=True)
        unit, length = normalize(negatives.detach(), dim=1), negatives.detach().norm(dim=1, keepdim=True)
        own = normalize(query[number], dim=0)
        across = (own - (unit @ own)[:, None] * unit) / length
        assert torch.allclose(found[number], (slope * across).sum(1) / across.square().sum(1), atol=1e-6)


def test_too_hard_and_floor() -> None:
    query = rows(B, seed=1)
    far = onca.pool(query, -query, query.roll(1, 0) + 0.1 * rows(B, seed=5), 0.1)
    found = seen(*[far] * 3, method="chain(keep(hardest(10)), infonce)")["too hard"]
    assert found.outcome == "alarm" and found.number == 1
    assert seen(plain())["too hard"].outcome == "fine"
    alike = onca.pool(query, query, rows(N), label=torch.zeros(B).long(), negative_label=torch.zeros(N).long())
    assert "of the query's class" in seen(alike)["too hard"].sentence and seen(alike)["too hard"].outcome == "alarm"
    with pytest.warns(UserWarning, match="floor"):
        as_method("debiased(0.5)")(floored := plain())
    assert seen(*[floored] * 3, method="debiased(0.5)")["floor"].outcome == "alarm"


def test_collapse_is_measured() -> None:
    even = spread(torch.eye(16).repeat(8, 1))
    assert even.variance == pytest.approx(15 / 16) and even.rank == pytest.approx(15, rel=1e-3)
    line = torch.linspace(-0.3, 0.3, 50)[:, None] * torch.eye(8)[:1] + torch.eye(8)[1:2]
    assert spread(line).rank < 1.1
    point = onca.pool(torch.eye(D)[:1] + 1e-3 * rows(B), rows(B), rows(N))
    assert seen(point)["collapse"].outcome == "alarm" and seen(plain())["collapse"].outcome == "fine"


def test_what_a_pool_cannot_tell_is_unknown() -> None:
    found = seen(onca.pool(rows(B), None, rows(N)))
    unknown = {name for name, finding in found.items() if finding.outcome == "unknown"}
    assert {"same label", "near-duplicates", "wrong positives", "too hard", "cold rows", "long queue"} <= unknown
    assert not alarms(list(found.values()))


# --- embeddings ------------------------------------------------------------------------------------------------------


def test_embeddings_with_planted_twins_and_broken_rows(tmp_path: Path) -> None:
    table = rows(600, 16).numpy()
    table[500:540] = table[:40] * 3 + 1e-3  # twins, of another length
    table[590], table[591:593] = np.nan, 0
    np.save(tmp_path / "e.npy", table)
    (tmp_path / "labels.txt").write_text("\n".join(str(number % 3) for number in range(600)))
    with pytest.warns(UserWarning, match="left out 3 rows"):
        found = {f.name: f for f in audit_embeddings(tmp_path / "e.npy", tmp_path / "labels.txt")}
    assert (
        found["broken rows"].outcome == "alarm" and "1 rows hold nan or inf and 2 rows" in found["broken rows"].sentence
    )
    assert found["near-duplicates"].outcome == "alarm"
    assert found["near-duplicates"].number == pytest.approx(80 / 597, abs=1e-3)
    assert found["same label"].outcome in ("fine", "note") and found["collapse"].outcome == "fine"


def test_twins_are_found_whatever_the_scale_of_the_space() -> None:
    for squeeze in (1.0, 0.01):  # an encoder that puts all images close together
        table = normalize(torch.eye(32)[:1] + squeeze * rows(500, 32), dim=1)
        planted = normalize(table[:25] + 0.02 * squeeze * rows(25, 32, seed=9), dim=1)
        groups = twins(torch.cat([table, planted]).float())
        pairs = groups[500:] == torch.arange(25)
        assert bool(pairs.all()) and len(groups.unique()) == 500  # recall 1, and none besides


# --- what a reader gets ----------------------------------------------------------------------------------------------


def test_text_json_and_exit_code(tmp_path: Path) -> None:
    query = rows(B, seed=1)
    audit = Audit(file=tmp_path / "audit.json", source="a pool made by hand")
    audit.see(onca.pool(query, query, torch.cat([query, rows(N)])))
    audit.save(1)
    findings, source, extent = read_audit(tmp_path / "audit.json")
    assert source == "a pool made by hand" and extent["steps"] == 1
    assert [f.name for f in alarms(findings)] == ["self-hits"] and exit_code(findings) == 1
    shown = text(findings)
    assert shown.startswith("ALARM  self-hits: 24 of 24 queries") and max(map(len, shown.splitlines())) <= 80
    assert shown.splitlines()[-1].startswith("1 alarm in")
    assert exit_code([f for f in findings if f.outcome != "alarm"]) == 0
    (tmp_path / "broken.json").write_text(json.dumps({"findings": [{}]}))
    with pytest.raises(ValueError, match="holds no audit"):
        read_audit(tmp_path / "broken.json")


def test_numbers_that_are_none_are_still_json(tmp_path: Path) -> None:
    write_audit(
        tmp_path / "a.json", [Finding("x", "fine", "y", math.nan, details={"z": (math.nan, 0.0, 1.0)})], "s", {}
    )
    json.loads((tmp_path / "a.json").read_text(), parse_constant=_refuse)
    findings, _, _ = read_audit(tmp_path / "a.json")
    assert findings[0].number is None


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def test_remedies_that_are_expressions_read() -> None:
    found = seen(plain(label=torch.arange(B) % 4, negative_label=torch.arange(N) % 4))
    for finding in found.values():
        if finding.remedy.startswith("chain("):
            onca.read(finding.remedy.split(", fnc()")[0])
