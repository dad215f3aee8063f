"""The ledger's rows against what a person counts, and against a brute force in float64 that imports nothing of onca."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import onca
from onca.ledger import COLUMNS, Ledger, read
from onca.ledger.entries import ROLES, Sight
from onca.ledger.sample import BESIDE, HARDEST, MOST, STRATA, step_of
from onca.ledger.sample import entries as draw_entries

TAU = 0.2  # temperature

Rows = list[dict[str, Any]]


def rows_of(place: Path, pools: Any, method: str, queries: int = 64, **more: Any) -> Rows:
    """What a ledger writes of one step in which every query is looked at."""
    pools = pools if isinstance(pools, list) else [pools]
    ledger = Ledger(place, every=1, queries=queries, **more)
    ledger.see(pools, onca.method.as_method(method), 1, 0.0)
    ledger.save(1)
    return read(place).to_pylist()


def negatives(rows: Rows, query: int) -> Rows:
    return [row for row in rows if row["query"] == query and row["role"] != "positive"]


# --- counted by hand -------------------------------------------------------------------------------------------------

ANGLES = (60, 20, 180, 60, 90)  # of five entries against the query, in degrees; the fourth ties with the first


def toy(**more: Any) -> onca.Pool:
    """One query, image 7, at angle 0; its positive at 30 degrees; entries of images 1 to 4, and 7 once more."""
    turns = torch.tensor([*ANGLES, 10], dtype=torch.float64).deg2rad()
    entries = torch.stack([turns.cos().round(decimals=12), turns.sin()], 1)
    other = torch.tensor([[math.cos(math.radians(30)), 0.5]], dtype=torch.float64)
    return onca.pool(
        torch.tensor([[1.0, 0.0]], dtype=torch.float64), other, entries, TAU,
        index=torch.tensor([7]), label=torch.tensor([2]),
        negative_index=torch.tensor([1, 2, 3, 4, -1, 7]), negative_label=torch.tensor([2, 2, 0, -1, 1, 2]), **more,
    )  # fmt: skip


def test_what_a_person_counts(tmp_path: Path) -> None:
    found = negatives(rows_of(tmp_path, toy(), "chain(drop(hardest(20)), infonce)"), 7)
    by_rank = {row["rank"]: row for row in found}
    assert len(found) == 5  # the entry of image 7 itself is absent
    assert [by_rank[rank]["negative"] for rank in range(5)] == [2, 1, 4, None, 3]  # a tie: the one that stands first
    assert [round(by_rank[rank]["percentile"], 9) for rank in range(5)] == [90, 70, 50, 30, 10]
    assert [round(by_rank[rank]["similarity"], 6) for rank in range(5)] == [0.939693, 0.5, 0.5, 0, -1]
    assert [by_rank[rank]["weight"] for rank in range(5)] == [0, 1, 1, 1, 1]
    mass = [0, math.exp(2.5), math.exp(2.5), 1, math.exp(-5)]
    assert [by_rank[rank]["gradient_share"] for rank in range(5)] == pytest.approx([m / sum(mass) for m in mass])
    assert [by_rank[rank]["flags"] for rank in range(5)] == [
        ["same_class"], ["same_class", "kept"], ["unlabelled", "kept"], ["kept"], ["kept"],
    ]  # fmt: skip
    assert {row["stands_for"] for row in found} == {1} and {row["age"] for row in found} == {None}
    assert {(row["step"], row["epoch"], row["pool"], row["role"]) for row in found} == {(1, 0.0, "", "memory")}


def test_the_positive_is_there_beside_them(tmp_path: Path) -> None:
    (own,) = [row for row in rows_of(tmp_path, toy(), "infonce") if row["role"] == "positive"]
    assert (own["query"], own["negative"], own["weight"], own["rank"], own["gradient_share"]) == (7, 7, 1, None, None)
    assert own["similarity"] == pytest.approx(math.cos(math.radians(30))) and own["flags"] == [
        "same_class",
        "same_image",
    ]


@pytest.mark.parametrize("number", [5, 8, 31])
@pytest.mark.parametrize(("low", "high"), [(0, 10), (90, 95), (95, 100), (99.9, 100), (37.5, 62.5)])
def test_percentiles_say_who_is_in_a_window(tmp_path: Path, number: int, low: float, high: float) -> None:
    torch.manual_seed(number)
    pool = onca.pool(torch.randn(2, 6), torch.randn(2, 6), torch.randn(number, 6), index=torch.arange(2))
    for row in rows_of(tmp_path, pool, f"total((1, chain(keep(window({low}, {high})), supcon)))"):
        if row["role"] != "positive":
            assert (low <= row["percentile"] < high) == ("kept" in row["flags"]), row


def test_near_duplicates_are_flagged_where_groups_are_known(tmp_path: Path) -> None:
    groups = torch.tensor([0, 5, 2, 3, 4, 6, 6, 5])
    for name, pool, more in (("pool", toy(duplicates=groups), {}), ("own", toy(), {"duplicates": groups})):
        found = negatives(rows_of(tmp_path / name, pool, "infonce", **more), 7)
        assert [row["negative"] for row in found if "near_duplicate" in row["flags"]] == [1]
    assert not any("near_duplicate" in row["flags"] for row in rows_of(tmp_path / "none", toy(), "infonce"))


# --- brute force -----------------------------------------------------------------------------------------------------
# A case: a method, and its loss of one query as a function of the scores of all entries it may count (float64, numpy).
# Slopes are central differences of that function. Nothing here imports onca but to make the pool and to run it.

QUERIES, NUMBER, DIM = 3, 18, 5
Loss = Callable[[np.ndarray, np.ndarray], float]  # scores of negatives [n], of positives [P]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def infonce(chosen: Callable[[np.ndarray], np.ndarray] = lambda s: np.ones(len(s), bool)) -> Loss:
    """The sets are chosen at the scores as they are: steps of a difference must not change them."""

    def loss(s: np.ndarray, sp: np.ndarray) -> float:
        return float(np.mean([np.log(1 + np.exp((s[chosen(s)] - one) / TAU).sum()) for one in sp]))

    return loss


def hardest(count: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda s: np.argsort(np.argsort(-s, kind="stable")) < count


def hcl(beta: float, tau_plus: float, attached: bool, drop: int = 0) -> Callable[[np.ndarray], Loss]:
    """2010.04592 with one positive; the `drop` hardest go after weights were given."""

    def made(at: np.ndarray) -> Loss:
        fixed = np.exp(beta * at / TAU)
        fixed = fixed / fixed.mean()
        left = ~hardest(drop)(at)

        def loss(s: np.ndarray, sp: np.ndarray) -> float:
            weights = np.exp(beta * s / TAU)
            weights = weights / weights.mean() if attached else fixed
            mean = (weights * np.exp(s / TAU))[left].mean()
            g = max((mean - tau_plus * np.exp(sp[0] / TAU)) / (1 - tau_plus), np.exp(-1 / TAU))
            return float(-sp[0] / TAU + np.log(np.exp(sp[0] / TAU) + left.sum() * g))

        return loss

    return made


def supcon_attracting(limit: float) -> Callable[[np.ndarray], Loss]:
    def made(at: np.ndarray) -> Loss:
        near = at > limit

        def loss(s: np.ndarray, sp: np.ndarray) -> float:
            pos = np.concatenate([sp, s[near]])
            return float(np.log(np.exp(np.concatenate([pos, s[~near]]) / TAU).sum()) - pos.mean() / TAU)

        return loss

    return made


def both(s: np.ndarray, sp: np.ndarray) -> float:
    return infonce()(s, sp) + 0.5 * infonce(hardest(4))(s, sp)


def triplet(s: np.ndarray, sp: np.ndarray) -> float:
    return float(np.mean([np.maximum(0, s - one + 0.3).mean() for one in sp]))


def turned(s: np.ndarray, sp: np.ndarray) -> float:
    """The four easiest count with the opposite sign."""
    easy = np.argsort(np.argsort(s, kind="stable")) < 4
    return infonce()(np.where(easy, -s, s), sp)


def copies(s: np.ndarray, sp: np.ndarray) -> float:
    """Five more entries like the hardest one (mochi of one hard entry and no share of the query: constants)."""
    return infonce()(s, sp)


CASES: dict[str, Callable[[np.ndarray], Loss]] = {
    "infonce": lambda at: infonce(),
    "chain(keep(hardest(25)), infonce)": lambda at: infonce(hardest(round_half(len(at) * 0.25))),
    "chain(drop(hardest(10)), infonce)": lambda at: infonce(lambda s: ~hardest(round_half(len(at) * 0.1))(s)),
    "hcl(1)": hcl(1, 0.1, True),
    "hcl(0.5, 0, attached=False)": hcl(0.5, 0.0, False),
    "chain(harden(1), drop(nearest(3)), debiased(0.1))": hcl(1, 0.1, True, drop=3),
    "chain(attract(above(0.5)), supcon)": supcon_attracting(0.5),
    "total((1, infonce), (0.5, chain(keep(nearest(4)), infonce)))": lambda at: both,
    "chain(triplet(0.3))": lambda at: triplet,
    "chain(mirror(farthest(4)), infonce)": lambda at: turned,
}


def round_half(value: float) -> int:
    return math.floor(value + 0.5)


def slopes(loss: Loss, s: np.ndarray, sp: np.ndarray, count: int | None = None) -> np.ndarray:
    """Central differences, by the first `count` scores."""
    step, found = 1e-6, np.zeros(len(s) if count is None else count)
    for place in range(len(found)):
        up, down = s.copy(), s.copy()
        up[place] += step
        down[place] -= step
        found[place] = (loss(up, sp) - loss(down, sp)) / (2 * step)
    return found


class Space:
    """Embeddings of no particular length, 18 entries for all queries and 3 of each query's own, float64."""

    def __init__(self, seed: int, positives: int = 1) -> None:
        draw = np.random.default_rng(seed)
        self.query, self.positive = draw.normal(size=(QUERIES, DIM)), draw.normal(size=(QUERIES, positives, DIM))
        self.shared, self.own = draw.normal(size=(NUMBER, DIM)), draw.normal(size=(QUERIES, 3, DIM))
        self.index = np.concatenate(
            [np.arange(QUERIES), np.arange(10, 10 + NUMBER - QUERIES)]
        )  # the first ones: own images

    def pool(self) -> onca.Pool:
        tensors = [torch.from_numpy(t) for t in (self.query, self.positive, self.shared, self.own)]
        return onca.pool(
            tensors[0], tensors[1], tensors[2:], TAU, index=torch.arange(QUERIES),
            negative_index=[torch.from_numpy(self.index), 100 + torch.arange(3 * QUERIES).view(QUERIES, 3)],
        )  # fmt: skip

    def scores(self, query: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores of the entries that are there and their images, and of the positives."""
        q = unit(self.query)[query]
        there = self.index != query
        s = np.concatenate([(unit(self.shared) @ q)[there], unit(self.own)[query] @ q])
        image = np.concatenate([self.index[there], 100 + 3 * query + np.arange(3)])
        return s, image, unit(self.positive)[query] @ q


@pytest.mark.parametrize("method", CASES)
def test_ranks_and_shares_are_those_of_the_brute_force(tmp_path: Path, method: str) -> None:
    space = Space(len(method), positives=1 if "hcl" in method or "debiased" in method else 2)
    rows = rows_of(tmp_path, space.pool(), method)
    for query in range(QUERIES):
        s, image, sp = space.scores(query)
        by_image = {row["negative"]: row for row in negatives(rows, query)}
        assert set(by_image) == set(image.tolist()) and len(by_image) == len(s)
        order = np.argsort(-s, kind="stable")
        assert [by_image[image[place]]["rank"] for place in order] == list(range(len(s)))
        assert [by_image[one]["similarity"] for one in image] == pytest.approx(s, abs=1e-6)
        by_score = slopes(CASES[method](s), s, sp)
        attracted = np.array(["attracted" in by_image[one]["flags"] for one in image])
        assert np.array_equal(attracted, s > 0.5) if "attract" in method else not attracted.any()
        size = np.where(attracted, 0, np.abs(by_score))
        shares = [by_image[one]["gradient_share"] for one in image]
        assert shares == pytest.approx(size / size.sum(), abs=2e-7)
        assert sum(shares) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("method", "weight"),
    [
        ("infonce", lambda s: np.ones(len(s))),
        ("chain(keep(hardest(25)), infonce)", lambda s: 1.0 * hardest(round_half(len(s) * 0.25))(s)),
        ("hcl(1)", lambda s: np.exp(s / TAU) / np.exp(s / TAU).mean()),
        (
            "chain(harden(1), drop(nearest(3)), debiased(0.1))",
            lambda s: np.exp(s / TAU) / np.exp(s / TAU).mean() * ~hardest(3)(s),
        ),
        ("total((1, infonce), (0.5, chain(keep(nearest(4)), infonce)))", lambda s: 1 + 0.5 * hardest(4)(s)),
        ("chain(attract(above(0.5)), supcon)", lambda s: 1.0 * (s <= 0.5)),
        ("total((2, chain(keep(nearest(2)), infonce)), (0, infonce))", lambda s: 2.0 * hardest(2)(s)),
    ],
)
def test_weights_are_what_entries_count(
    tmp_path: Path, method: str, weight: Callable[[np.ndarray], np.ndarray]
) -> None:
    space = Space(3)
    rows = rows_of(tmp_path, space.pool(), method)
    for query in range(QUERIES):
        s, image, _ = space.scores(query)
        by_image = {row["negative"]: row for row in negatives(rows, query)}
        assert [by_image[one]["weight"] for one in image] == pytest.approx(weight(s), rel=1e-5)
        assert ["kept" in by_image[one]["flags"] for one in image] == (weight(s) > 0).tolist()


def test_mixed_points_are_rows_of_their_own(tmp_path: Path) -> None:
    """Of one hard entry, and with no share of the query, all points are that entry once more."""
    space = Space(4)
    rows = rows_of(tmp_path, space.pool(), "chain(mochi(n=1, s=3, s2=1, beta=0), infonce)")
    for query in range(QUERIES):
        s, image, sp = space.scores(query)
        found = negatives(rows, query)
        mixed = [row for row in found if row["role"] == "mixed"]
        assert [(row["negative"], row["rank"], row["percentile"], row["weight"]) for row in mixed] == [
            (None, None, None, 1)
        ] * 4
        everything = np.concatenate([s, np.full(4, s.max())])
        size = np.abs(slopes(infonce(), everything, sp))
        assert [row["similarity"] for row in mixed] == pytest.approx([s.max()] * 4, abs=1e-6)
        assert [row["gradient_share"] for row in mixed] == pytest.approx(size[-4:] / size.sum(), abs=2e-7)
        by_image = {row["negative"]: row["gradient_share"] for row in found if row["role"] != "mixed"}
        assert [by_image[one] for one in image] == pytest.approx(size[:-4] / size.sum(), abs=2e-7)


def test_older_entries_that_come_in_are_rows_and_take_part_in_no_rank(tmp_path: Path) -> None:
    draw = np.random.default_rng(5)
    query, keys = draw.normal(size=(2, 4)), draw.normal(size=(15, 4))
    pool = onca.pool(
        torch.from_numpy(query), torch.from_numpy(draw.normal(size=(2, 4))), torch.from_numpy(keys), TAU, reserve=5,
        index=torch.tensor([50, 51]), negative_index=torch.arange(15),
    )  # fmt: skip
    rows = rows_of(tmp_path, pool, "chain(drop(nearest(2), refill=True), infonce)")
    for place in range(2):
        s = unit(keys) @ unit(query)[place]
        limit = np.sort(s[:10])[-2]
        comes = [image for image in range(10, 15) if s[image] < limit][:2]
        found = {row["negative"]: row for row in negatives(rows, 50 + place)}
        assert sorted(found) == [*range(10), *comes]
        for image, row in found.items():
            older = image in comes
            assert (row["rank"] is None) == older == ("refilled" in row["flags"])
            assert row["weight"] == (1.0 if older or s[image] < limit else 0.0)
        assert sum(row["gradient_share"] for row in found.values()) == pytest.approx(1, abs=1e-5)


def test_queries_that_are_the_keys(tmp_path: Path) -> None:
    """SimCLR: an entry's slope is that of one query's loss, not that of all losses by its embedding."""
    draw = np.random.default_rng(6)
    views = draw.normal(size=(2, 4, 3))
    rows = np.concatenate(views)
    both_views = torch.from_numpy(rows)
    pool = onca.pool(
        both_views, both_views.roll(4, 0), both_views, TAU, index=torch.arange(4).repeat(2),
        negative_index=torch.arange(4).repeat(2),
    )  # fmt: skip
    sight = Sight(pool, onca.infonce)
    for query in range(8):
        others = [place for place in range(8) if place % 4 != query % 4]
        s, sp = unit(rows)[others] @ unit(rows)[query], unit(rows)[[(query + 4) % 8]] @ unit(rows)[query]
        size = np.abs(slopes(infonce(), s, sp))
        found = sight.entries(query)
        assert found.index.tolist() == [place % 4 for place in others] and set(found.role) == {ROLES.index("batch")}
        assert found.gradient_share == pytest.approx(size / size.sum(), abs=1e-8)
    written = rows_of(tmp_path, pool, "infonce")
    assert {row["query"] for row in written} == {0, 1, 2, 3}  # one query an image


def test_entries_that_are_listed_twice_are_two(tmp_path: Path) -> None:
    bank = onca.Bank(6, 4)
    query = onca.pool(torch.randn(1, 4), None, torch.randn(1, 4)).negatives.query
    unit_query = torch.nn.functional.normalize(query)
    bag = bank.drawn(unit_query, torch.tensor([[4, 2, 4, 0]]), torch.tensor([0]))
    pool = onca.Pool(positives=bank.positives(unit_query, torch.tensor([0])), negatives=bag, temperature=TAU,
                     index=torch.tensor([0]))  # fmt: skip
    found = negatives(rows_of(tmp_path, pool, "infonce"), 0)
    assert sorted(row["negative"] for row in found) == [2, 4, 4]  # row 0 is the query's own
    twice = [row for row in found if row["negative"] == 4]
    assert twice[0]["gradient_share"] == twice[1]["gradient_share"] and {row["rank"] for row in found} == {0, 1, 2}


def test_a_method_that_chooses_inside_has_slopes_and_no_weights(tmp_path: Path) -> None:
    bank = onca.Bank(30, 4, neighbours=2)
    index = torch.tensor([3, 8])
    query = torch.nn.functional.normalize(torch.randn(2, 4))
    pool = onca.Pool(
        positives=bank.positives(query, index), negatives=bank.negatives(query, index), temperature=TAU, index=index,
        neighbours=bank.neighbours, epoch=0.0,
    )  # fmt: skip
    rows = rows_of(tmp_path, pool, "invp(k=2, background=5)")
    for place, own in enumerate((3, 8)):
        s = (bank.keys.double() @ query[place].double()).numpy()
        s[own] = -np.inf
        near = np.argsort(-s)[:5]
        found = negatives(rows, own)
        assert {row["weight"] for row in found} == {None} and not any("kept" in row["flags"] for row in found)
        share = {row["negative"]: row["gradient_share"] for row in found}
        mass = {image: np.exp(s[image] / TAU) for image in near}
        for image, value in share.items():
            assert value == pytest.approx(mass.get(image, 0) / sum(mass.values()), abs=1e-6)


def test_a_query_without_negatives_has_no_shares(tmp_path: Path) -> None:
    pool = onca.pool(torch.randn(2, 4), torch.randn(2, 4), torch.randn(3, 4), label=torch.tensor([0, 1]),
                     negative_label=torch.tensor([0, 0, 0]), index=torch.tensor([5, 6]))  # fmt: skip
    rows = rows_of(tmp_path, pool, "chain(drop(same_class), infonce)")
    assert {row["gradient_share"] for row in negatives(rows, 5)} == {0}
    assert sum(row["gradient_share"] for row in negatives(rows, 6)) == pytest.approx(1)


def test_an_empty_memory_gives_the_positives_only(tmp_path: Path) -> None:
    queue = onca.Queue(8, 4)
    query = torch.nn.functional.normalize(torch.randn(2, 4))
    pool = onca.Pool(
        positives=onca.pool(query, query, query).positives, negatives=queue.negatives(query), temperature=1.0
    )
    assert {row["role"] for row in rows_of(tmp_path, pool, "chain(keep(hardest(5)), infonce)")} == {"positive"}


# --- the sample ------------------------------------------------------------------------------------------------------


def large(number: int = 1000, seed: int = 0) -> onca.Pool:
    draw = torch.Generator().manual_seed(seed)
    query, positive, keys = (torch.randn(count, 8, generator=draw) for count in (4, 4, number))
    return onca.pool(query, positive, keys, TAU, index=torch.arange(4), negative_index=10 + torch.arange(number))


def test_a_sample_holds_the_hardest_the_edges_and_every_stratum(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, large(), "chain(keep(window(50, 60)), infonce)")
    for query in range(4):
        found = negatives(rows, query)
        sure = [*range(HARDEST), 398, 399, 400, 401, 498, 499, 500, 501]
        assert {row["stands_for"] for row in found if row["rank"] in sure} == {1}
        drawn = sorted({row["rank"] for row in found} - set(sure))
        others = [rank for rank in range(1000) if rank not in sure]
        ends = [1, 2, 3, 6, 11, 20, 37, 67, 123, 246, 369, 492, 615, 738, 861, 984]  # of 16 strata of 984 entries
        inside = [others.index(rank) for rank in drawn]
        assert [start <= place < end for start, place, end in zip([0, *ends], inside, ends, strict=False)] == [
            True
        ] * 16
        assert sum(row["stands_for"] for row in found) == 1000
        assert len(found) == HARDEST + 4 * BESIDE + STRATA <= MOST


def test_sums_over_the_sample_are_right_on_average() -> None:
    """Share of the slope on images of an even number, against all entries: many draws for the same queries."""
    sight = Sight(large(), onca.method.as_method("hcl(1)"))
    for query in range(4):
        whole = sight.entries(query)
        even = np.where(whole.index % 2 == 0, whole.gradient_share, 0)
        drawn = [draw_entries(whole, 0, step, query) for step in range(400)]
        sums = [float((even[one.place] * one.stands_for).sum()) for one in drawn]
        error = np.std(sums) / math.sqrt(len(sums))
        assert abs(np.mean(sums) - even.sum()) < 4 * error and error < 0.01


def test_one_step_of_every_so_many_is_looked_at_and_another_seed_looks_at_others() -> None:
    steps = [step_of(0, window, 16) for window in range(100)]
    assert all(16 * window < step <= 16 * (window + 1) for window, step in enumerate(steps))
    assert len({(step - 1) % 16 for step in steps}) > 10
    assert steps != [step_of(1, window, 16) for window in range(100)]


def test_queries_are_of_different_images_and_differ_from_step_to_step(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, every=1, queries=2)
    for step in range(1, 21):
        ledger.see([large()], onca.infonce, step, 0.0)
    ledger.save(20)
    seen = {(row["step"], row["query"]) for row in read(tmp_path).to_pylist()}
    assert len(seen) == 40 and len({query for _, query in seen}) == 4


def test_queries_are_divided_among_pools(tmp_path: Path) -> None:
    pools = [
        onca.pool(torch.randn(4, 3), torch.randn(4, 3), torch.randn(9, 3), index=torch.arange(4)) for _ in range(3)
    ]
    named = [type(pool)(**{**vars(pool), "name": f"pool {place}"}) for place, pool in enumerate(pools)]
    rows = rows_of(tmp_path, named, "infonce", queries=5)
    per_pool = [len({row["query"] for row in rows if row["pool"] == f"pool {place}"}) for place in range(3)]
    assert per_pool == [2, 2, 1]


# --- engines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        "infonce",
        "chain(keep(hardest(5)), infonce)",
        "chain(keep(window(80, 90)), infonce)",
        "chain(drop(hardest(2), refill=True), infonce)",
        "chain(drop(hardest(10) & same_class), debiased(0.1))",
        "hcl(1)",
    ],
)
def test_engines_give_the_same_rows(tmp_path: Path, method: str) -> None:
    """Embeddings of few whole numbers: scores are exact, whatever adds them up."""
    draw = torch.Generator().manual_seed(1)
    query, positive, keys = (torch.randint(-3, 4, (count, 16), generator=draw).float() / 16 for count in (32, 32, 512))
    pool = onca.pool(
        query, positive, keys, TAU, index=torch.arange(32), negative_index=torch.arange(512), normalize=False,
        label=torch.arange(32) % 4, negative_label=torch.arange(512) % 4, reserve=100,
    )  # fmt: skip
    found = {}
    for name in ("torch", "native"):
        try:
            with onca.engine(name):
                found[name] = rows_of(tmp_path / name, pool, method)
        except ValueError as missing:
            pytest.skip(str(missing))
    assert len(found["torch"]) == len(found["native"])
    for one, other in zip(found["torch"], found["native"], strict=True):
        for column in COLUMNS:
            rounded = column in ("weight", "gradient_share") and one[column] is not None  # sums, in another order
            assert one[column] == (pytest.approx(other[column], rel=1e-5) if rounded else other[column]), column
