"""The queue as a ring: whatever the position, it shows what a plain list of the last keys would."""

import pytest
import torch

import onca

D = 8
EXPRESSIONS = (
    "infonce",
    "chain(drop(nearest(1), refill=True), infonce)",
    "chain(drop(hardest(10), refill=True), infonce)",
    "chain(drop(hardest(2), refill=True), drop(nearest(3), refill=True), infonce)",
    "chain(drop(same_class, refill=True), infonce)",
)


@pytest.mark.parametrize("expression", EXPRESSIONS)
@pytest.mark.parametrize("position", [0, 1, 90, 150, 151, 240, 299])
def test_refill_from_a_ring_equals_refill_from_a_list(expression: str, position: int) -> None:
    """150 shown keys and as many behind them, the ring turned so that its seam lies anywhere."""
    draw = torch.Generator().manual_seed(0)
    size, slots = 150, 300
    keys = torch.nn.functional.normalize(torch.randn(2 * slots + position, D, generator=draw, dtype=torch.float64))
    labels = torch.randint(0, 9, (len(keys),), generator=draw)
    query, positive = (torch.randn(6, D, generator=draw, dtype=torch.float64) for _ in range(2))
    label = torch.arange(6)
    queue = onca.Queue(size, D, reserve=slots - size, dtype=torch.float64)
    for part, its in zip(keys.split(37), labels.split(37), strict=True):
        queue.enqueue(part, label=its)
    contrast = onca.Contrast(expression, 0.3, memory=queue).eval()
    newest_first = keys.flip(0)[:slots]
    expected = onca.contrast(
        query, positive, newest_first, expression, 0.3, label=label,
        negative_label=labels.flip(0)[:slots], reserve=slots - size,
    )  # fmt: skip
    torch.testing.assert_close(contrast(query, positive, label=label), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batches", [[5], [3, 4, 9, 1], [40], [16, 16], []])
def test_the_last_keys_stay_and_know_who_they_are(batches: list[int]) -> None:
    queue = onca.Queue(10, D, reserve=6)
    seen: list[tuple[int, int]] = []
    for step, count in enumerate(batches):
        index = torch.arange(100 * step, 100 * step + count)
        queue.enqueue(torch.ones(count, D), index=index, label=index % 7, view=1)
        seen += [(int(i), step) for i in index]
    kept = seen[-16:]
    there = queue.age >= 0
    assert sorted(queue.index[there].tolist()) == sorted(i for i, _ in kept)
    assert {(int(i), int(a)) for i, a in zip(queue.index[there], queue.age[there], strict=True)} == {
        (i, len(batches) - 1 - step) for i, step in kept
    }
    assert (queue.label[there] == queue.index[there] % 7).all() and (queue.view[there] == 1).all()


def test_the_official_start_is_random_and_belongs_to_no_image() -> None:
    queue = onca.Queue(10, D, start="random")
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(10))
    assert (queue.index == -1).all() and (queue.age >= 0).all()
    assert int(queue.negatives(torch.ones(2, D)).count().min()) == 10
    assert int(onca.Queue(10, D).negatives(torch.ones(2, D)).count().max()) == 0
