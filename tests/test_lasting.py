"""The memory that keeps hard keys longer, against a plain list; its limits, its null control, its continuation."""

from collections import Counter
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

import onca
from onca.lasting import Lasting, lasting
from onca.memory import queue as plain_queue

D = 6
FIELDS = ("keys", "index", "label", "age", "view", "position")


def draw(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def step(memory: onca.Queue, number: int, first: int, seed: int, queries: int = 5) -> None:
    """One training step: queries of images 0, 1, ... are counted, then keys of the images from `first` on come in."""
    query, keys = (
        normalize(torch.randn(n, D, generator=draw(seed + n), dtype=torch.float64)) for n in (queries, number)
    )
    memory.count(pool_of(memory, query, torch.arange(queries), seed))
    index = torch.arange(first, first + number)
    memory.enqueue(keys, index, index % 3, view=1)


def pool_of(memory: onca.Queue, query: Tensor, index: Tensor | None = None, seed: int = 0) -> onca.Pool:
    positives = onca.pool(query, query, query[:0]).positives
    return onca.Pool(positives, memory.negatives(query, index), 0.1, index=index, seed=seed)


class Marked(onca.Selector):
    """Always names the key of one image."""

    def __init__(self, image: int) -> None:
        self.image = image

    def __call__(self, pool: onca.Pool, bag: onca.Bag) -> Any:
        return lambda piece: (piece.entries("index") == self.image).expand(piece.score.shape)


# --- the rules once more, with a list --------------------------------------------------------------------------------


class Plain:
    """Slots are dicts or None; the k nearest of each query are chosen."""

    def __init__(self, size: int, span: float, k: int) -> None:
        self.slots: list[dict[str, Any] | None] = [None] * size
        self.span, self.k, self.position, self.clock = span, k, 0, 0

    def count(self, query: Tensor) -> None:
        for image, q in enumerate(query):
            present = [s for s in self.slots if s and s["image"] != image]
            for place, entry in enumerate(sorted(present, key=lambda s: -float(s["key"] @ q))):
                entry["hits"] += place < self.k
        for entry in self.slots:
            if entry:
                entry["queries"] += len(query)

    def enqueue(self, keys: Tensor, first: int) -> None:
        size, n = len(self.slots), len(keys)
        for place, entry in enumerate(self.slots):
            if entry and self.clock + n - entry["number"] >= self.span * size:
                self.slots[place] = None
        going = self.going(n)
        for i in range(max(0, n - size), n):
            new = {
                "image": first + i,
                "key": keys[i],
                "number": self.clock + i + 1,
                "hits": 0,
                "queries": 0,
                "turns": 0,
            }
            self.slots[going[i]] = new
        self.clock += n

    def going(self, n: int) -> list[int]:
        """The slot of each new key."""
        size = len(self.slots)
        reach = [(self.position + i) % size for i in range(min(2 * n, size))]
        if n >= size or not any(self.slots[p] and self.slots[p]["hits"] for p in reach):
            start, self.position = self.position, (self.position + n) % size
            return [(start + i) % size for i in range(n)]
        due, groups = [], {}
        for p in reach:
            entry = self.slots[p]
            if not entry or self.clock + n - entry["number"] + max(size / 2, n) > self.span * size:
                due.append(p)
            else:
                groups.setdefault(entry["turns"], []).append((entry["hits"] / entry["queries"], reach.index(p), p))
        ranked = []
        for members in groups.values():
            for rank, (rate, order, p) in enumerate(sorted(members), 1):
                ranked.append((rank / len(members), rate, order, p))
        leaving = set((due + [p for *_, p in sorted(ranked)])[:n])
        waiting = [p for p in due if p not in leaving]
        passed = reach.index(waiting[0]) if waiting else len(reach)
        for p in reach[:passed]:
            if self.slots[p]:
                self.slots[p]["turns"] += 1
        self.position = (self.position + passed) % size
        return [p for p in reach if p in leaving]


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 23), batches=st.lists(st.integers(0, 30), min_size=1, max_size=25),
    span=st.sampled_from([1, 1.5, 2, 4]), k=st.integers(0, 3), small=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_it_does_what_a_plain_list_does(
    size: int, batches: list[int], span: float, k: int, small: bool, seed: int
) -> None:
    memory = Lasting(size, D, onca.nearest(k), span, dtype=torch.float64)
    plain, first = Plain(size, span, k), 0
    for n in batches:
        n = n % 4 if small else n
        query, keys = (normalize(torch.randn(m, D, generator=draw(seed), dtype=torch.float64)) for m in (5, n))
        memory.count(pool_of(memory, query, torch.arange(5)))
        plain.count(query)
        memory.enqueue(keys, torch.arange(first, first + n))
        plain.enqueue(keys, first)
        first, seed = first + n, seed + 1
        held = [i if a >= 0 else None for i, a in zip(memory.index.tolist(), memory.age.tolist(), strict=True)]
        assert held == [entry and entry["image"] for entry in plain.slots]
        for name in ("hits", "queries", "turns"):
            value = getattr(memory, name).tolist()
            assert all(value[p] == entry[name] for p, entry in enumerate(plain.slots) if entry)
        assert int(memory.position) == plain.position and int(memory.clock) == plain.clock


# --- what it promises ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chosen, span", [("above(2)", 4), ("nearest(0)", 2), ("hardest(30)", 1), ("nearest(1)", 1)])
@pytest.mark.parametrize("size", [12, 17])
def test_without_choices_or_with_one_life_it_is_a_queue(chosen: str, span: float, size: int) -> None:
    memory = Lasting(size, D, onca.read(chosen), span)
    queue = onca.Queue(size, D)
    for at, number in enumerate([5, 3, 8, 1, 0, 6, 6, 12, 9, 17, 2, 40, 7, 8, 5, 5, 4]):
        for each in (memory, queue):
            step(each, number, first=40 * at, seed=at)
        for name in FIELDS:
            assert getattr(memory, name).equal(getattr(queue, name)), name


@pytest.mark.parametrize("span", [1, 2, 3, 4.5])
@pytest.mark.parametrize("size, number", [(40, 4), (37, 5), (20, 10), (20, 13)])
def test_a_key_that_is_always_marked_lasts_span_lives_and_then_goes(size: int, number: int, span: float) -> None:
    memory, marked = Lasting(size, D, Marked(2 * number + 1), span), 2 * number + 1
    there = []
    for at in range(60):
        step(memory, number, first=at * number, seed=at)
        there.append(marked in memory.index[memory.age >= 0].tolist())
    first, last = there.index(True), 59 - there[::-1].index(True)
    assert all(there[first : last + 1]) and not there[-1]
    newer = (last + 1) * number - 1 - marked  # keys that came in while it stayed
    assert newer < span * size <= newer + max(number, size / 2) + number, "less would be wrong too"


@pytest.mark.parametrize("number", [4, 7])
def test_so_does_one_among_others_that_are_chosen_now_and_then(number: int) -> None:
    memory, marked = Lasting(64, D, Marked(200) | onca.sample(9), 3), 200
    for at in range(200):
        step(memory, number, first=at * number, seed=at)
        newer = (at + 1) * number - 1 - marked  # keys that came in after it
        there = marked in memory.index[memory.age >= 0].tolist()
        assert there or not 0 <= newer <= 2.5 * 64 - 2 * number
        assert not (there and newer >= 3 * 64)


@settings(max_examples=15, deadline=None)
@given(
    size=st.integers(2, 20), batches=st.lists(st.integers(1, 9), min_size=30, max_size=60),
    span=st.sampled_from([1, 2, 2.5]), k=st.integers(1, 4),
)  # fmt: skip
def test_no_key_is_ever_older_than_span_lives(size: int, batches: list[int], span: float, k: int) -> None:
    memory = Lasting(size, D, onca.nearest(k) | onca.sample(1), span)
    for at, number in enumerate(batches):
        step(memory, number, first=10 * at, seed=at)
        newer = memory.clock - 1 - memory.born
        assert int(newer[memory.age >= 0].max()) < span * size
        assert int(memory.age.eq(0).sum()) == min(number, size), "every new key finds a place"


def test_a_new_key_has_a_fair_chance() -> None:
    """Nobody goes before some half of a life in a queue has passed, however easy."""
    memory, number, seen = Lasting(64, D, onca.nearest(6), 4), 4, {}
    for at in range(150):
        before = {int(i) for i in memory.index[memory.age >= 0]}
        step(memory, number, first=at * number, seed=at)
        now = {int(i) for i in memory.index[memory.age >= 0]}
        seen |= {image: at * number - image for image in before - now}
    assert min(seen.values()) >= 64 / 2 - 2 * number
    assert max(seen.values()) > 3 * 64 and len(seen) > 400


# --- real against null -----------------------------------------------------------------------------------------------


def course(chosen: str, size: int = 120, number: int = 10, steps: int = 150) -> tuple[list[int], Counter[int], float]:
    """Keys held after each step, how often each age was seen, and how near the held keys are to a fixed direction."""
    memory = Lasting(size, D, onca.read(chosen), 4, dtype=torch.float64)
    pole = torch.eye(D, dtype=torch.float64)[0]
    held, ages, near = [], Counter[int](), []
    for at in range(steps):
        query = normalize(pole + 0.3 * torch.randn(32, D, generator=draw(at), dtype=torch.float64))
        memory.count(pool_of(memory, query, seed=at))
        memory.enqueue(normalize(torch.randn(number, D, generator=draw(1000 + at), dtype=torch.float64)))
        there = memory.age >= 0
        held.append(int(there.sum()))
        if at >= steps // 2:
            ages.update(memory.age[there].tolist())
            near.append(float((memory.keys[there] @ pole).mean()))
    return held, ages, sum(near) / len(near)


def test_real_and_null_differ_in_what_is_kept_and_in_nothing_else() -> None:
    real, null = course("hardest(20)"), course("hardest(20, by=random)")
    assert real[0] == null[0] and real[0][-1] == 120
    total = sum(real[1].values())
    assert sum((real[1] - null[1]).values()) / total < 0.01, "ages: less than one in a hundred falls elsewhere"
    assert max(real[1]) > 30 and abs(null[2]) < 0.1 < 0.25 < real[2]
    assert course("hardest(20, by=random)") == null, "deterministic"


def test_easy_keys_go_first() -> None:
    memory = Lasting(60, D, onca.hardest(20), 4, dtype=torch.float64)
    pole, lives = torch.eye(D, dtype=torch.float64)[0], {}
    for at in range(120):
        query = normalize(pole + 0.3 * torch.randn(32, D, generator=draw(at), dtype=torch.float64))
        memory.count(pool_of(memory, query))
        keys = normalize(torch.randn(6, D, generator=draw(1000 + at), dtype=torch.float64))
        before = {int(i): float(c) for i, c in zip(memory.index, memory.keys @ pole, strict=True) if i >= 0}
        memory.enqueue(keys, torch.arange(6 * at, 6 * at + 6))
        for image in before.keys() - set(memory.index.tolist()):
            lives[image] = (before[image], at - image // 6)
    short = [cosine for cosine, life in lives.values() if life <= 6]
    long = [cosine for cosine, life in lives.values() if life > 20]
    assert len(short) > 100 and len(long) > 10
    assert sum(long) / len(long) > sum(short) / len(short) + 0.3 and min(long) > 0


# --- state, hosts, text ----------------------------------------------------------------------------------------------


def test_a_checkpoint_on_the_way_changes_nothing() -> None:
    def go(memory: Lasting, start: int, stop: int) -> None:
        for at in range(start, stop):
            step(memory, 3 + at % 4, first=10 * at, seed=at)

    whole, first, second = (Lasting(25, D, onca.nearest(3), 3) for _ in range(3))
    go(whole, 0, 60)
    go(first, 0, 31)
    second.load_state_dict({name: value.clone() for name, value in first.state_dict().items()})
    go(second, 31, 60)
    assert whole.state_dict().keys() >= {*FIELDS, "hits", "queries", "turns", "born", "clock"}
    for name, value in whole.state_dict().items():
        assert value.equal(second.state_dict()[name]), name


def test_it_counts_its_own_entries_wherever_they_stand_in_a_pool() -> None:
    memory = Lasting(7, D, onca.nearest(4), dtype=torch.float64)
    memory.enqueue(normalize(torch.randn(5, D, generator=draw(0), dtype=torch.float64)), torch.arange(5))
    query = normalize(torch.randn(3, D, generator=draw(1), dtype=torch.float64))
    other = onca.pool(query, query, torch.randn(3, 2, D, generator=draw(2), dtype=torch.float64)).negatives
    alone = pool_of(memory, query)
    linked = onca.Pool(alone.positives, other.plus(memory.negatives(query)), 0.1)
    want = linked.negatives.hits(onca.nearest(4)(linked, linked.negatives))[2:]
    memory.count(linked)
    assert memory.hits.equal(want) and int(want.sum()) <= 12 and memory.queries.tolist() == [3] * 5 + [0] * 2
    for strange in (onca.Pool(alone.positives, other, 0.1), pool_of(onca.Queue(7, D), query.float())):
        with pytest.raises(ValueError, match="those of this memory"):
            memory.count(strange)


def test_own_images_and_empty_rows_are_not_counted() -> None:
    memory = Lasting(6, D, onca.hardest(100))
    memory.enqueue(normalize(torch.randn(4, D)), torch.arange(4))
    memory.count(pool_of(memory, normalize(torch.randn(3, D)), torch.arange(3)))
    assert memory.hits.tolist() == [2, 2, 2, 3, 0, 0]


def test_it_serves_moco() -> None:
    memory = onca.read("lasting(hardest(25), span=2)")(16, 4)
    host = onca.hosts.MoCo(torch.nn.Linear(8, 4), memory, symmetric=True)
    for at in range(12):
        views = tuple(torch.randn(5, 8, generator=draw(2 * at + view)) for view in range(2))
        pools = host.pools(onca.hosts.Batch(views, torch.arange(5 * at, 5 * at + 5), step=at))
        host.loss(pools, onca.infonce).backward()
        for pool in pools:
            memory.count(pool)
        host.after_step()
    assert int(memory.clock) == 120 and int((memory.age > 1).sum()) and int(memory.hits.sum())
    assert "memory.hits" in host.state_dict()


def test_text_and_refusals() -> None:
    assert str(onca.read("lasting(hardest(5, by=random))")) == "lasting(hardest(5, by=random))"
    assert onca.read("queue") is plain_queue and type(plain_queue(8, D, 3)) is onca.Queue
    assert plain_queue(8, D, 3).reserve == 3 and plain_queue(8, D).count(None) is None
    made = onca.read("lasting(same_class & hardest(5), span=2)")
    assert made.needs == onca.same_class.needs and made(8, D).span == 2
    for wrong, words in (
        (lambda: lasting("hardest"), "chosen must be a selector"),
        (lambda: lasting(onca.hardest(5), 0.5), "span is a number of lives in a queue, 1 or more; got 0.5"),
        (lambda: lasting(onca.hardest(5), onca.after(1, 2)), "span is a number of lives"),
        (lambda: lasting(onca.hardest(5))(8, D, 8), r"lasting\(hardest\(5\)\) keeps no older keys that refill"),
        (lambda: Lasting(0, D, onca.hardest(5)), "size and dim from 1"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()
