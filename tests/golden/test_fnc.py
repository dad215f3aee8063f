"""False negative cancellation (arXiv 2011.11765) against the official code's numbers and those of the paper."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

import onca
from onca.difficulty import Difficulty, support_max, support_mean
from onca.methods.fnc import cancel, fnc
from onca.select import above, nearest
from onca.selector import Selector

Tensor = torch.Tensor
PRECISIONS = [torch.float64, torch.float32]
WIDTHS = [1, 4, None]
ALL = -2.0  # no cosine is below it: the k nearest, whatever their score


def detected(k: int, threshold: float, by: Difficulty = support_max) -> Selector:
    return nearest(k, by=by) & above(threshold, by=by)


def chosen(selector: Selector, pool: onca.Pool) -> Tensor:
    """Entry by entry, [B,N] bool."""
    test = selector(pool, pool.negatives)
    return torch.cat([pieces[0].present() & test(pieces[0]) for _, pieces in pool.negatives.blocks()])


def scores(by: Difficulty, pool: onca.Pool) -> Tensor:
    return torch.cat([by(pool)(pieces[0]) for _, pieces in pool.negatives.blocks()])


def others(views: Tensor) -> Tensor:
    """The other views of each row's image: [V,B,d] -> [V*B,V-1,d], view-major as the rows are."""
    number = len(views)
    kept = [[w for w in range(number) if w != v] for v in range(number)]
    return torch.cat([views[places].transpose(0, 1) for places in kept])


def methods(k: int, threshold: float) -> Iterator[tuple[str, onca.Method]]:
    yield "attraction", fnc(k, threshold)
    yield "elimination_strict", fnc(k, threshold, attraction=False)
    yield "elimination_keep_own", onca.chain(cancel(k, threshold), onca.supcon)


def check_losses(golden, pool, leaf: Tensor) -> None:
    for name, method in methods(golden.integer("topk"), golden.number("threshold")):
        per_anchor = method(pool)
        golden.close(per_anchor, golden[f"{name}_per_anchor"].reshape(-1))
        loss = 2 * per_anchor.mean()
        golden.close(loss, f"{name}_loss")
        (gradient,) = torch.autograd.grad(loss, leaf, retain_graph=True)
        golden.close(gradient, f"{name}_grad_hidden", gradient=True)


def in_batch(golden, hidden: Tensor) -> onca.Pool:
    number = golden.integer("n_views")
    views = hidden.reshape(number, -1, hidden.shape[1])
    image = torch.arange(views.shape[1]).repeat(number)
    support = views.transpose(0, 1).repeat(number, 1, 1)
    temperature = golden.number("temperature")
    return onca.pool(hidden, others(views), hidden, temperature, index=image, negative_index=image, support=support)


@pytest.mark.golden("fnc", "inbatch")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_in_batch_losses(golden, dtype, width):
    hidden = golden.tensor("hidden", dtype).requires_grad_()
    with onca.sliced.rows(width):
        check_losses(golden, in_batch(golden, hidden), hidden)


@pytest.mark.golden("fnc", "inbatch")
def test_in_batch_masks(golden):
    hidden, number = golden.tensor("hidden"), golden.integer("n_views")
    assert number == 2 + golden.integer("support_size")
    pool = in_batch(golden, hidden)
    k, threshold = golden.integer("topk"), golden.number("threshold")
    for name, selector in (
        ("fn_mask", detected(k, threshold)),
        ("fn_mask_topk_only", detected(k, ALL)),
        ("fn_mask_mean_agg", detected(k, threshold, support_mean)),
    ):
        golden.close(chosen(selector, pool), np.tile(golden[name].astype(bool), (number, 1)))  # one mask an image
    own = pool.index[:, None] == pool.index
    assert not (chosen(nearest(len(hidden)), pool) & own).any()  # own views are absent before anything is ranked
    golden.close(scores(support_max, pool)[~own], np.tile(golden["scores"], (number, 1))[~own.numpy()])


@pytest.mark.golden("fnc", "memory")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_memory(golden, dtype, width):
    hidden = golden.tensor("hidden", dtype).requires_grad_()
    memory = golden.tensor("memory", dtype)
    number = golden.integer("n_views")
    ema = golden.tensor("hidden_ema", dtype).reshape(number, -1, hidden.shape[1])
    image = torch.arange(ema.shape[1]).repeat(number)
    known = torch.cat([image, image.new_full((len(memory) - len(image),), -1)])
    with onca.sliced.rows(width):
        pool = onca.pool(
            hidden,
            others(ema),
            memory,
            golden.number("temperature"),
            index=image,
            negative_index=known,
            support=ema.transpose(0, 1).repeat(number, 1, 1),
        )
        check_losses(golden, pool, hidden)
        mask = chosen(detected(golden.integer("topk"), golden.number("threshold")), pool)
    golden.close(mask, np.tile(golden["fn_mask"].astype(bool), (number, 1)))


@pytest.mark.golden("fnc", "memory")
def test_memory_is_the_newest_keys_in_front_of_the_older_ones(golden):
    new, before = golden.tensor("hidden_ema_normalised"), golden.tensor("memory_before")
    assert len(before) == golden.integer("memory_multiplier") * len(golden["fn_mask"])
    golden.close(torch.cat([new, before[: len(before) - len(new)]]), "memory")
    golden.close(torch.nn.functional.normalize(golden.tensor("hidden_ema"), dim=1), "hidden_ema_normalised")


@pytest.mark.golden("fnc", "queue")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_queue(golden, dtype, width):
    query, queue = golden.tensor("q", dtype).requires_grad_(), golden.tensor("queue", dtype)
    by = {"max": support_max, "mean": support_mean}[golden.text("aggregation")]
    k, threshold = golden.integer("topk"), golden.number("threshold")
    k, threshold = {"topk": (k, ALL), "threshold": (len(queue), threshold), "both": (k, threshold)}[golden.text("rule")]
    positive, support = golden.tensor("pos", dtype), golden.tensor("support", dtype)
    with onca.sliced.rows(width):
        pool = onca.pool(query, positive, queue, golden.number("temperature"), support=support, normalize=False)
        golden.close(chosen(detected(k, threshold, by), pool), golden["fn_mask"].astype(bool))
        golden.close(scores(by, pool), "scores")
        for name, attraction in (("elimination", False), ("attraction", True)):
            per_anchor = fnc(k, threshold, attraction, by)(pool)
            golden.close(per_anchor, f"{name}_per_anchor")
            golden.close(per_anchor.mean(), f"{name}_loss")
            (gradient,) = torch.autograd.grad(per_anchor.mean(), query)
            golden.close(gradient, f"{name}_grad_q", gradient=True)
