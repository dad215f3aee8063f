"""Mirrored negatives against per-query loops in float64: what sees which scores, and where the gradient points."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import oracle
import pytest
import torch
from hypothesis import given as draws
from hypothesis import settings
from hypothesis import strategies as st
from pools import SETTINGS, arguments, derive

import onca

Tensor = torch.Tensor

METHODS = (
    "chain(mirror(easiest(20) & ~above(0)), infonce)",
    "chain(mirror(given), supcon)",
    "chain(mirror(~above(0)), mirror(given), debiased(0.1))",
    "chain(keep(hardest(60)), mirror(farthest(4)), keep(hardest(50)), infonce)",
    "chain(mirror(farthest(4)), keep(nearest(6)), infonce)",
    "chain(keep(nearest(15, by=support_max)), mirror(farthest(6)), drop(nearest(3, by=support_mean)), infonce)",
    "chain(mirror(farthest(5)), attract(nearest(3)), supcon)",
    "chain(mirror(farthest(5)), attract(nearest(3)), mirror(given), mass)",
    "chain(drop(hardest(30), refill=True), mirror(farthest(5)), infonce)",
    "chain(mirror(farthest(5)), drop(hardest(30), refill=True), mirror(same_class), infonce)",
    "chain(mirror(farthest(5)), harden(1), debiased(0.1))",
    "total((1, infonce), (0.5, chain(mirror(~above(-0.2)), infonce)))",
)


def mirror(chosen: oracle.Selector) -> Callable[[oracle.State], oracle.State]:
    """Every score of a chosen entry, with the query and with support views, changes its sign."""

    def rule(now: oracle.State) -> oracle.State:
        test = chosen.prepare(now)
        sign = [-1 if place in now.shown and test(place) else 1 for place in range(len(now.cosine))]
        support = [[side * value for value in row] for side, row in zip(sign, now.support, strict=True)]
        return replace(now, cosine=now.cosine * torch.tensor(sign), support=support)

    return rule


def expected(text: str, case: oracle.Case) -> Tensor:
    names = oracle.NAMES | {"mirror": mirror}
    return torch.stack(oracle.method(eval(text, {"__builtins__": {}}, names))(case))


@pytest.mark.parametrize("width", [2, None])
@pytest.mark.parametrize("text", METHODS)
@pytest.mark.parametrize("name", SETTINGS)
def test_loss_and_gradients_equal_the_oracle(name: str, text: str, width: int | None) -> None:
    setting = SETTINGS[name]()
    leaves = [leaf.clone().requires_grad_() for leaf in setting.leaves]
    wanted = expected(text, setting.make(leaves))
    case = setting.make(leaves)
    with onca.sliced.rows(width):
        found = onca.contrast(method=text, reduction="none", **arguments(case))
        slopes = derive(found, leaves)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(slopes, derive(wanted, leaves), rtol=1e-9, atol=1e-11)


def test_the_oracle_notices_a_rule_before_the_mirror_that_sees_mirrored_scores() -> None:
    """The two orders of the same rules are two methods."""
    setting = SETTINGS["shared"]()
    case = setting.make(setting.leaves)
    text = "chain(keep(nearest(15)), mirror(farthest(6)), infonce)"
    swapped = "chain(mirror(farthest(6)), keep(nearest(15)), infonce)"
    found = onca.contrast(method=text, reduction="none", **arguments(case))
    assert (found - expected(swapped, case)).abs().max() > 1e-3


# --- identities ------------------------------------------------------------------------------------------------------


def some(seed: int) -> dict[str, Any]:
    number = torch.Generator().manual_seed(seed)
    rows = [torch.randn(n, 6, generator=number, dtype=torch.float64) for n in (5, 5, 20)]
    given = torch.rand(5, 20, generator=number) < 0.4
    return dict(zip(("query", "positive", "negatives"), rows, strict=True)) | {"given": given, "reduction": "none"}


@draws(seed=st.integers(0, 10**6), objective=st.sampled_from(["infonce", "debiased(0.05)", "triplet(0.3)"]))
@settings(max_examples=25, deadline=None)
def test_mirrored_entries_are_negated_keys_and_twice_is_never(seed: int, objective: str) -> None:
    values = some(seed)
    plain = onca.contrast(method=objective, **values)
    assert torch.equal(onca.contrast(method=f"chain(mirror(above(2)), {objective})", **values), plain)
    assert torch.equal(onca.contrast(method=f"chain(mirror(given), mirror(given), {objective})", **values), plain)
    keys = torch.where(values["given"][..., None], -values["negatives"], values["negatives"])
    negated = onca.contrast(method=objective, **values | {"negatives": keys})
    found = onca.contrast(method=f"chain(mirror(given), {objective})", **values)
    torch.testing.assert_close(found, negated, rtol=1e-12, atol=1e-12)


def test_an_anti_correlated_entry_is_pushed_back_towards_orthogonality() -> None:
    """A step against the gradient makes its score rise under mirror; under plain InfoNCE it goes on falling."""
    values = some(1)
    key = torch.nn.functional.normalize(values["negatives"], dim=1)
    moved = {}
    for text in ("infonce", "chain(mirror(farthest(1)), infonce)"):
        query = torch.nn.functional.normalize(values["query"], dim=1).requires_grad_()
        loss = onca.contrast(query, query.detach(), key, text, 0.2)  # the positive pulls nowhere
        step = query - 0.01 * torch.autograd.grad(loss, query)[0]
        with torch.no_grad():
            before, after = (torch.nn.functional.normalize(q, dim=1) @ key.T for q in (query, step))
        far = before.argmin(1, keepdim=True)
        assert float(before.gather(1, far).max()) < -0.3
        moved[text] = after.gather(1, far) - before.gather(1, far)
    plain, mirrored = moved.values()
    assert bool((mirrored > 0).all()) and bool((mirrored > plain).all())


def test_a_list_of_taken_entries_keeps_their_signs() -> None:
    pool = onca.pool(**{k: v for k, v in some(2).items() if k != "reduction"})
    turned = onca.methods.mirror(onca.given)(pool).negatives
    test = onca.nearest(7)(pool, turned)
    taken = turned.take(test)
    torch.testing.assert_close(taken.lse(5.0), turned.only(test).lse(5.0))
    again = taken.turned(lambda piece: piece.score > 0.5).turned(lambda piece: piece.score < -0.5)
    torch.testing.assert_close(again.lse(5.0), taken.lse(5.0))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="chosen must be a selector"):
        onca.read("chain(mirror(0.1), infonce)")
    with pytest.raises(ValueError, match="stands behind harden"):
        onca.contrast(method="chain(harden(1), mirror(given), infonce)", **some(3))
