"""All methods on all pools, against the oracle: the loss of each query and its derivative by all that goes in."""

import math
from fractions import Fraction
from functools import cache
from typing import Any

import oracle
import oracle_methods  # noqa: F401 - adds the methods' names to the oracle's
import pytest
import torch
from oracle import Case
from pools import SETTINGS, B, D, N, arguments, derive, rows
from torch.utils._python_dispatch import TorchDispatchMode

import onca
from onca.select import ranks

Tensor = torch.Tensor
WIDTHS = [1, 7, None]  # queries handled at once

METHODS = """
infonce
supcon
mass
debiased(0.1)
debiased(tau_plus=0.01)
triplet(0.2)
total((1.0, infonce), (0.5, chain(keep(hardest(50)), supcon)), (-0.25, mass))
chain(keep(window(60, 90)), infonce)
chain(keep(window(0, 75, by=support_mean)), infonce)
chain(keep(hardest(30)), supcon)
chain(keep(easiest(50)), debiased(0.01))
chain(keep(nearest(5)), mass)
chain(keep(semihard(0.6)), triplet(0.6))
chain(keep(~given), supcon)
chain(keep(hardest(60) | same_class), mass)
chain(drop(hardest(12.5)), mass)
chain(drop(nearest(3, by=support_max)), infonce)
chain(drop(nearest(4, by=support_max) & above(0.1, by=support_max)), infonce)
chain(drop(farthest(4)), infonce)
chain(drop(above(0.3)), infonce)
chain(drop(above(0.1, by=support_mean)), mass)
chain(drop(same_class), infonce)
chain(drop(hardest(25) & same_class), infonce)
chain(drop(hardest(25) & ~same_class), infonce)
chain(drop(same_class & ~hardest(25)), infonce)
chain(drop(same_image | given), debiased(0.05))
chain(drop(hardest(10), refill=True), infonce)
chain(drop(same_class, refill=True), infonce)
chain(drop(window(40, 80) | given, refill=True), supcon)
chain(drop(same_class & ~hardest(25), refill=True), mass)
chain(attract(given), supcon)
chain(attract(same_class), infonce)
chain(attract(same_class), mass)
chain(attract(nearest(3, by=support_max) & above(0.1, by=support_max)), supcon)
chain(attract(given), debiased(0.1))
chain(attract(given), triplet(0.2))
chain(harden(0.5), infonce)
chain(harden(2), supcon)
chain(harden(1.0), debiased(0.05))
chain(harden(1.0), mass)
chain(attract(given), harden(0.5), debiased(0.1))
chain(drop(same_class), keep(window(50, 100)), infonce)
chain(keep(window(50, 100)), drop(same_class), infonce)
chain(keep(hardest(50)), keep(hardest(50)), infonce)
chain(attract(same_class), keep(hardest(50)), supcon)
chain(drop(hardest(10)), harden(1.0), infonce)
chain(harden(1.0), drop(hardest(10)), infonce)
chain(drop(nearest(3), refill=True), drop(nearest(3), refill=True), infonce)
chain(drop(nearest(2), refill=True), keep(hardest(50)), infonce)
chain(keep(hardest(after(10, 30))), infonce)
chain(keep(hardest(ramp(100, 20, 40))), harden(cosine_decay(1.0, 0.2, 40)), debiased(0.1))
hcl(0.5, 0.05)
hcl(beta=2, tau_plus=0.01)
chain(ring(60, 20), infonce)
chain(ring(outer=75, inner=30, of="outer"), supcon)
chain(ring(60, 20, neighbours=True), aggregation())
chain(ring(60, 20, neighbours=True), aggregation("mean"))
chain(ring(60, 20), aggregation(positive_in_denominator=False))
chain(ball(40), debiased(0.02))
chain(drop(same_class), ball(50), infonce)
chain(cancel(3, 0.1), infonce)
chain(cancel(4, -1, support_mean), mass)
fnc(3, 0.1)
fnc(k=4, threshold=0.05, attraction=False)
fnc(k=4, threshold=-1, by=support_mean)
chain(mirror(easiest(30)), infonce)
chain(mirror(~above(0)), keep(hardest(50)), mass)
chain(mirror(same_class), mirror(same_class), infonce)
chain(keep(hardest(60)), mirror(easiest(40)), drop(nearest(2, by=support_max)), infonce)
chain(own_views(1, 1), infonce)
chain(own_views(close=2, far=0), supcon)
chain(own_views(close=0, far=2), keep(hardest(50)), infonce)
chain(attract(same_class), with_positives(supcon))
chain(attract(given), with_positives(supcon))
chain(keep(hardest(75)), margin(1.2, 0.2))
chain(attract(given), margin(boundary=1.0))
nce
chain(keep(hardest(50)), nce)
chain(drop(hardest(20, by=external("hand"))), infonce)
chain(keep(nearest(6, by=external("hand"))), mass)
chain(drop(near_duplicate), infonce)
chain(attract(near_duplicate), supcon)
chain(drop(hardest(50) & above(1, by=label_distance)), infonce)
chain(keep(hardest(50, by=label_distance)), infonce)
chain(keep(reached(2)), infonce)
chain(attract(reached(1)), mass)
invp(3, 2, 3, 8, 0.6, 0)
invp(k=3, steps=1, hardest=50, background=100, weight=1.5, start=3)
chain(drop(same_class), invp(3, 2, 4, 6, start=1))
chain(auto(0.1, 0.5), infonce)
chain(auto(0.3, 0.5), supcon)
chain(drop(same_class), auto(0.4, 0.9), mass)
""".strip().splitlines()


def fits(method: str, setting: str) -> bool:
    """A margin is measured from one positive, distances between unit rows; refill needs a reserve, InvP a bank."""
    if setting == "several positives" and any(word in method for word in ("semihard", "triplet", "margin")):
        return False
    if "margin" in method and setting in ("rows as they are", "quantised"):
        return False
    if "invp" in method and setting != "bank":
        return False
    return setting == "reserve" or "refill" not in method


PAIRS = [
    pytest.param(method, setting, id=f"{method}-{setting}")
    for method in METHODS
    for setting in SETTINGS
    if fits(method, setting)
]


@cache
def expected(method: str, setting: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, list[Tensor]]:
    """The oracle's losses and derivatives, in float64, of inputs as `dtype` holds them."""
    made = SETTINGS[setting]()
    leaves = [x.to(dtype).double().requires_grad_() for x in made.leaves]
    per_query = oracle.losses(method, made.make(leaves))
    return per_query.detach(), derive(per_query, leaves)


def found(method: str, setting: str, dtype: torch.dtype = torch.float64) -> tuple[Tensor, list[Tensor]]:
    made = SETTINGS[setting]()
    leaves = [x.to(dtype).requires_grad_() for x in made.leaves]
    case = arguments(made.make(leaves))
    per_query = onca.contrast(**case, method=method, reduction="none")
    return per_query.detach(), derive(per_query, leaves)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("method", "setting"), PAIRS)
def test_equals_the_oracle(method: str, setting: str, width: int | None) -> None:
    losses, gradients = expected(method, setting)
    with onca.sliced.rows(width):
        got, got_gradients = found(method, setting)
    torch.testing.assert_close(got, losses, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(got_gradients, gradients, rtol=1e-9, atol=1e-11)


# --- narrower types --------------------------------------------------------------------------------------------------

NARROW = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("setting", ["shared", "per query", "linked", "several positives", "rows as they are"])
@pytest.mark.parametrize(
    "method",
    [
        "infonce",
        "supcon",
        "chain(harden(1.0), debiased(0.05))",
        "chain(keep(window(50, 90)), infonce)",
        "chain(attract(same_class), keep(nearest(7, by=support_max)), mass)",
    ],
)
def test_narrow_inputs_are_computed_in_float32(method: str, setting: str, dtype: torch.dtype) -> None:
    losses, gradients = expected(method, setting, dtype)
    got, got_gradients = found(method, setting, dtype)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), losses, rtol=2e-5, atol=1e-6)
    for mine, theirs in zip(got_gradients, gradients, strict=True):
        assert mine.dtype == dtype
        # Derivatives are rounded to the type of the input, that of a row and that of its length apart.
        share = 5e-5 if dtype == torch.float32 else 3 * torch.finfo(dtype).eps
        torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=share * float(theirs.abs().max()))


def test_derivatives_of_shared_keys_are_summed_in_float32() -> None:
    """A sum over many slices in bfloat16 would lose what each of them adds."""
    narrow = [torch.nn.functional.normalize(rows(n, D, seed=n)).bfloat16() for n in (256, 257, N)]
    narrow[1] = narrow[1][:256]

    def keys(dtype: torch.dtype) -> Tensor:
        leaves = [x.to(dtype).requires_grad_() for x in narrow]
        return derive(onca.contrast(*leaves, normalize=False, reduction="none"), leaves)[2].double()

    wanted = keys(torch.float64)
    with onca.sliced.rows(1):
        got = keys(torch.bfloat16)
    torch.testing.assert_close(got, wanted, rtol=0, atol=2**-7 * float(wanted.abs().max()))


@pytest.mark.parametrize(
    "method", ["infonce", "chain(keep(window(50, 100)), infonce)", "chain(harden(1), debiased(0.1))"]
)
def test_autocast_changes_nothing(method: str) -> None:
    plain_losses, plain_gradients = found(method, "shared", torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        losses, gradients = found(method, "shared", torch.float32)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, plain_losses, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(gradients, plain_gradients, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "method",
    [
        "chain(keep(window(30, 70)), infonce)",
        "chain(drop(hardest(12.5)), infonce)",
        "chain(drop(nearest(3, by=support_max)), infonce)",
        "chain(drop(farthest(3)), infonce)",
        "chain(keep(above(0.5)), mass)",
    ],
)
def test_ties_are_broken_alike_in_narrow_types(method: str, dtype: torch.dtype, width: int | None) -> None:
    """Multiples of 1/8 are exact in every type: each keeps the very entries that the oracle keeps."""
    losses, _ = expected(method, "quantised")
    with onca.sliced.rows(width):
        got, _ = found(method, "quantised", dtype)
    torch.testing.assert_close(got.double(), losses, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("method", ["infonce", "supcon", "mass", "debiased(0.1)", "chain(harden(5), debiased(0.01))"])
def test_finite_at_a_low_temperature(method: str, dtype: torch.dtype) -> None:
    query, negatives = rows(B, D, seed=5), rows(N, D, seed=7)
    negatives[0], negatives[1] = query[0], -query[0]  # as like and as unlike as can be
    leaves = [x.to(dtype).requires_grad_() for x in (query, query + 0.1 * rows(B, D, seed=6), negatives)]
    wanted = oracle.losses(method, Case(leaves[0], leaves[1], [leaves[2]], 0.05))
    losses = onca.contrast(*leaves, method, temperature=0.05, reduction="none")
    torch.testing.assert_close(losses.double(), wanted, rtol=5e-5, atol=5e-6)
    assert all(bool(g.isfinite().all()) for g in derive(losses, leaves))


# --- how slices are worked through -----------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """Remembers how many elements the largest result of any operation had."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else (result,):
            if isinstance(x, torch.Tensor) and not any(x is a or x._base is a for a in args if isinstance(a, Tensor)):
                fresh = x.untyped_storage().nbytes() // x.element_size()
                shared = any(isinstance(a, Tensor) and a.data_ptr() == x.data_ptr() for a in args)
                self.elements = max(self.elements, 0 if shared else fresh)
        return result


@pytest.mark.parametrize("method", ["infonce", "chain(drop(window(90, 95)), harden(1.0), debiased(0.1))"])
def test_no_matrix_of_all_queries_by_all_entries(method: str) -> None:
    b, n, d, width = 64, 512, 4, 4
    leaves = [rows(b, d, seed=1), rows(b, d, seed=2), rows(n, d, seed=3)]
    leaves = [x.float().requires_grad_() for x in leaves]
    with Largest() as seen, onca.sliced.rows(width):
        onca.contrast(*leaves, method).backward()
    assert width * n <= seen.elements < b * n / 4


def test_keys_are_normalised_without_a_copy() -> None:
    b, n, d = 4, 64, 128
    query, positive, keys = rows(b, d, seed=1), rows(b, d, seed=2), rows(n, d, seed=3)
    query.requires_grad_()
    with Largest() as seen, onca.sliced.rows(1):
        onca.contrast(query, positive, keys, "chain(keep(window(50, 100)), infonce)").backward()
    assert seen.elements < n * d


# --- a rule sees what the one before it left -------------------------------------------------------------------------


def places(pool: Any) -> list[list[int]]:
    """The entries that are present, of each query, by their places in the linked bags."""
    everything = onca.above(-1e9)(pool, pool.negatives)
    most = int(pool.negatives.count().max())
    return [[p for p in row if p >= 0] for row in pool.negatives.rows(everything, max(most, 1)).tolist()]


RULES = """
drop(nearest(3)); keep(window(50, 100))
keep(window(50, 100)); drop(nearest(3))
drop(same_class); keep(hardest(25))
keep(hardest(25)); drop(same_class)
attract(same_class); keep(hardest(50))
drop(nearest(3), refill=True)
drop(nearest(3), refill=True); drop(nearest(3), refill=True)
drop(above(0.2), refill=True); drop(hardest(10))
drop(hardest(10) & same_class, refill=True)
drop(hardest(10) & same_class, refill=True); drop(nearest(2), refill=True)
drop(given, refill=True); drop(above(0.4), refill=True)
""".strip().splitlines()


@pytest.mark.parametrize(
    ("rules", "setting"),
    [
        (rules, setting)
        for rules in RULES
        for setting in ("shared", "reserve", "linked", "quantised")
        if fits(rules, setting)
    ],
)
def test_rules_leave_the_entries_that_the_oracle_leaves(rules: str, setting: str) -> None:
    made = SETTINGS[setting]()
    case = made.make(made.leaves)
    pool = onca.pool(**arguments(case))
    for rule in rules.split("; "):
        pool = onca.read(rule)(pool)
    wanted = [sorted(now.shown) for now in oracle.left(f"chain({rules.replace(';', ',')}, supcon)", case)]
    assert [sorted(row) for row in places(pool)] == wanted
    assert pool.negatives.count().tolist() == [len(row) for row in wanted]


def test_the_order_of_rules_matters() -> None:
    made = SETTINGS["shared"]()
    case = arguments(made.make(made.leaves))
    one = onca.contrast(**case, method="chain(drop(same_class), keep(hardest(25)), infonce)")
    other = onca.contrast(**case, method="chain(keep(hardest(25)), drop(same_class), infonce)")
    assert abs(float(one - other)) > 1e-3


@pytest.mark.parametrize(
    ("rules", "fall_short"),
    [
        ("drop(nearest(1), refill=True), drop(nearest(2), refill=True)", False),
        ("drop(nearest(1), refill=True), drop(nearest(12), refill=True)", True),
        ("drop(nearest(12), refill=True), drop(above(2), refill=True)", True),
    ],
)
def test_the_share_of_queries_whose_reserve_does_not_suffice_is_noted(rules: str, fall_short: bool) -> None:
    inputs = rows(B, D, seed=5), rows(B, D, seed=6), rows(N + 9, D, seed=7)
    text, notes = f"chain({rules}, infonce)", dict[str, Any]()
    onca.contrast(*inputs, text, reserve=9, notes=notes)
    share = sum(now.short for now in oracle.left(text, Case(*inputs[:2], [inputs[2]], reserve=9))) / B
    assert (share > 0) == fall_short
    assert float(notes["short"]) == pytest.approx(share)


@pytest.mark.parametrize("percent", ["0", "0.1", "5", "33.3", "99.9999999", "100", "33.333333333333336", "1e-09"])
def test_ranks_are_exact_for_any_number_of_digits(percent: str) -> None:
    number = torch.tensor([0, 1, 7, 10, 4096, 65_536, 2**31 - 1])
    exact = [math.floor(Fraction(percent) * n / 100 + Fraction(1, 2)) for n in number.tolist()]
    assert ranks(number, Fraction(percent)).tolist() == exact
