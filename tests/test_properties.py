"""Properties of the algebra on drawn expressions and pools."""

from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import oracle
import pytest
import torch
from hypothesis import assume, given, settings
from oracle import Case
from pools import arguments, derive

import onca

Tensor = torch.Tensor
settings.register_profile("fixed", max_examples=40, deadline=None, derandomize=True)
settings.load_profile("fixed")


# --- drawn values ----------------------------------------------------------------------------------------------------


@st.composite
def percents(draw: st.DrawFn) -> str:
    """A number from 0 to 100 with up to three decimals, as text."""
    return format(Decimal(draw(st.integers(0, 100_000))).scaleb(-3).normalize(), "f")


@st.composite
def windows(draw: st.DrawFn) -> str:
    low, high = sorted((draw(percents()), draw(percents())), key=Decimal)
    assume(Decimal(low) < Decimal(high))
    return f"window({low}, {high}{draw(st.sampled_from(['', ', by=cosine', ', by=support_max']))})"


def joined(simple: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.recursive(
        simple,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda x: f"({x[0]} & {x[1]})"),
            st.tuples(inner, inner).map(lambda x: f"({x[0]} | {x[1]})"),
            inner.map(lambda x: f"~{x}"),
        ),
        max_leaves=4,
    )


# The contract leaves open whether ranks at the easy end mean an older entry that is easier than all that are shown.
BOUNDED = st.one_of(
    windows().filter(lambda text: not text.startswith("window(0,")),
    percents().filter(lambda text: text != "100").map("hardest({})".format),
    st.integers(1, 30).map("nearest({})".format),
    st.integers(1, 30).map("nearest({}, by=support_mean)".format),
    st.integers(-9, 9).map(lambda eighths: f"above({eighths / 8})"),
    st.sampled_from(["same_class", "same_image", "given", "semihard(0.5)"]),
)
SIMPLE = st.one_of(
    BOUNDED,
    windows(),
    percents().map("hardest({})".format),
    percents().map("easiest({})".format),
    st.integers(1, 30).map("farthest({})".format),
)
SELECTORS = joined(SIMPLE)
RULES = st.one_of(
    SELECTORS.map("keep({})".format),
    SELECTORS.map("drop({})".format),
    joined(BOUNDED).map("drop({}, refill=True)".format),
    SELECTORS.map("attract({})".format),
    st.integers(0, 16).map(lambda eighths: f"harden({eighths / 8})"),
)
OBJECTIVES = st.sampled_from(["infonce", "supcon", "mass", "debiased(0.1)", "debiased(tau_plus=0.01)"])


def tilts_what_stays(rules: list[str]) -> bool:
    """Nothing comes in after `harden`: the contract does not say how that would be tilted."""
    first = next((i for i, rule in enumerate(rules) if rule.startswith("harden")), len(rules))
    return not any("refill" in rule or rule.startswith("attract") for rule in rules[first:])


CHAINS = st.tuples(st.lists(RULES, max_size=3).filter(tilts_what_stays), OBJECTIVES).map(
    lambda x: f"chain({', '.join([*x[0], x[1]])})"
)


@st.composite
def cases(draw: st.DrawFn, *, reserve: bool = True) -> Case:
    """A pool of multiples of 1/4 in three dimensions: products are exact, and ties are everywhere."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    b, n, s = draw(st.integers(1, 4)), draw(st.integers(1, 30)), draw(st.integers(1, 3))
    older = draw(st.integers(1, 12)) if reserve else 0

    def quarters(*shape: int) -> Tensor:
        return torch.randint(-3, 4, shape, generator=generator).double() / 4

    def whole(high: int, *shape: int) -> Tensor:
        return torch.randint(-1, high, shape, generator=generator)

    return Case(
        quarters(b, 3),
        quarters(b, 3),
        [quarters(n + older, 3)],
        temperature=0.5,
        label=whole(3, b),
        negative_label=[whole(3, n + older)],
        index=whole(5, b),
        negative_index=[whole(5, n + older)],
        support=quarters(b, s, 3),
        given=whole(2, b, n + older) > 0,
        reserve=older,
        normalize=False,
    )


# --- looking inside --------------------------------------------------------------------------------------------------


def chosen(pool: Any, selector: Any) -> list[set[int]]:
    """The places of the entries that a selector chooses, of each query."""
    test = selector(pool, pool.negatives)
    return [{p for p in row if p >= 0} for row in pool.negatives.rows(test, len(pool.negatives)).tolist()]


def present(pool: Any) -> list[set[int]]:
    return chosen(pool, onca.above(-1e9))


# --- windows ---------------------------------------------------------------------------------------------------------


@given(
    cases(), st.lists(percents(), max_size=5), st.sampled_from(["cosine", "support_max", "random", "label_distance"])
)
def test_windows_that_tile_partition_the_entries(case: Case, cuts: list[str], by: str) -> None:
    pool = replace(onca.pool(**arguments(case)), depth=torch.eye(3) + 1)  # of three labels; -1 is no label
    edges = sorted({"0", "100", *cuts}, key=Decimal)
    parts = [chosen(pool, onca.read(f"window({low}, {high}, by={by})")) for low, high in pairwise(edges)]
    for query, everything in enumerate(present(pool)):
        pieces = [part[query] for part in parts]
        assert set().union(*pieces) == everything
        assert sum(map(len, pieces)) == len(everything)


@given(cases(), windows())
def test_a_window_holds_as_many_entries_as_its_percentages_say(case: Case, text: str) -> None:
    pool = onca.pool(**arguments(case))
    low, high = (Decimal(edge) for edge in text.removeprefix("window(").rstrip(")").split(", ")[:2])
    for n, found in zip(pool.negatives.count().tolist(), chosen(pool, onca.read(text)), strict=True):
        assert len(found) == oracle.count_of(n, 100 - low) - oracle.count_of(n, 100 - high)


@given(cases(), percents())
def test_hardest_and_easiest_are_windows(case: Case, percent: str) -> None:
    pool = onca.pool(**arguments(case))
    rest = format((100 - Decimal(percent)).normalize(), "f")
    assume(0 < Decimal(percent) < 100)
    assert chosen(pool, onca.read(f"hardest({percent})")) == chosen(pool, onca.read(f"window({rest}, 100)"))
    assert chosen(pool, onca.read(f"easiest({percent})")) == chosen(pool, onca.read(f"window(0, {percent})"))


@given(cases(), st.integers(1, 40))
def test_nearest_and_farthest_split_the_ranks(case: Case, k: int) -> None:
    pool = onca.pool(**arguments(case))
    near, far = chosen(pool, onca.nearest(k)), chosen(pool, onca.farthest(k))
    for n, one, other in zip(pool.negatives.count().tolist(), near, far, strict=True):
        assert len(one) == len(other) == min(n, k)
        assert len(one & other) == max(0, 2 * min(n, k) - n)


@given(cases(), st.integers(0, 35), st.sampled_from(["uniform", "distance"]), st.integers(0, 99))
def test_a_sample_is_drawn_by_seed_query_and_place(case: Case, n: int, weight: str, seed: int) -> None:
    drawn = []
    for width in (1, 3, None):
        with onca.sliced.rows(width):
            drawn.append(chosen(onca.pool(**arguments(case), seed=seed), onca.sample(n, weight=weight)))
    assert drawn[0] == drawn[1] == drawn[2]
    for everything, some in zip(present(onca.pool(**arguments(case))), drawn[0], strict=True):
        assert some <= everything and len(some) == min(n, len(everything))


def test_samples_differ_by_seed_and_query_and_are_fair() -> None:
    """4 of 16 for 4,000 queries: each entry is drawn 1,000 times, give or take 5 standard deviations of 27."""
    query, keys = torch.ones(4000, 2), torch.ones(16, 2)
    hits = []
    for seed in (1, 2):
        pool = onca.pool(query, query, keys, seed=seed)
        hits.append(pool.negatives.hits(onca.sample(4)(pool, pool.negatives)))
        assert len({frozenset(x) for x in chosen(pool, onca.sample(4))}) > 1000  # of 1820
    assert not torch.equal(*hits)
    assert int((torch.stack(hits) - 1000).abs().max()) < 5 * 27.4


@given(cases(), SELECTORS)
def test_hits_are_the_columns_of_rows(case: Case, text: str) -> None:
    pool = onca.pool(**arguments(case))
    selector = onca.read(text)
    hits = pool.negatives.hits(selector(pool, pool.negatives)).tolist()
    assert hits == [sum(place in some for some in chosen(pool, selector)) for place in range(len(pool.negatives))]


# --- rules -----------------------------------------------------------------------------------------------------------


@given(cases(), SELECTORS)
def test_drop_is_keep_of_the_others(case: Case, text: str) -> None:
    pool, selector = onca.pool(**arguments(case)), onca.read(text)
    dropped, kept = onca.drop(selector)(pool), onca.keep(~selector)(pool)
    assert (
        present(dropped) == present(kept) == [a - b for a, b in zip(present(pool), chosen(pool, selector), strict=True)]
    )
    assert dropped.negatives.count().tolist() == kept.negatives.count().tolist()


@given(cases(), SELECTORS, SELECTORS)
def test_and_or_not_are_those_of_sets(case: Case, one: str, other: str) -> None:
    pool, a, b = onca.pool(**arguments(case)), onca.read(one), onca.read(other)
    of_each = zip(*(chosen(pool, x) for x in (onca.above(-1e9), a, b, a & b, a | b, ~(a | b))), strict=True)
    for everything, x, y, both, either, neither in of_each:
        assert both == x & y
        assert either == x | y
        assert neither == everything - x - y


@given(cases(), st.lists(SELECTORS, min_size=1, max_size=3))
def test_refill_keeps_the_count_and_uses_no_entry_twice(case: Case, texts: list[str]) -> None:
    now = onca.pool(**arguments(case))
    for text in texts:
        before, older = present(now), waiting(now)
        selector = onca.read(text)
        test = selector(now, now.negatives)
        passed = now.reserve.rows(test, len(now.reserve)).tolist()
        after = onca.drop(selector, refill=True)(now)
        for had, has, out, queue, over in zip(
            before, present(after), chosen(now, selector), older, passed, strict=True
        ):
            fit = [place for place in queue if place not in over]
            came = has - had
            assert has == (had - out) | came
            assert sorted(came) == fit[: len(out)]  # newest first, and as many as went out where there are as many
        assert after.negatives.count().tolist() == [len(x) for x in present(after)]
        assert not any(x & set(y) for x, y in zip(present(after), waiting(after), strict=True))
        now = after


def waiting(pool: Any) -> list[list[int]]:
    """Places of the reserve, newest first."""
    everything = onca.above(-1e9)(pool, pool.reserve)
    return [[p for p in row if p >= 0] for row in pool.reserve.rows(everything, len(pool.reserve)).tolist()]


@given(cases(), CHAINS)
@settings(max_examples=150)
def test_any_chain_is_the_oracles(case: Case, text: str) -> None:
    assume("semihard" not in text or "attract" not in text)
    assert case.positive is not None
    leaves = [x.clone().requires_grad_() for x in (case.query, case.positive, *case.negatives)]
    case = replace(case, query=leaves[0], positive=leaves[1], negatives=leaves[2:])
    try:
        wanted = oracle.losses(text, case)
    except oracle.EveryQueryEmpty:
        with pytest.raises(ValueError, match="negatives"):
            onca.contrast(**arguments(case), method=text)
        return
    with onca.sliced.rows(3):
        got = onca.contrast(**arguments(case), method=text, reduction="none")
        slopes = derive(got, leaves)
    torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(slopes, derive(wanted, leaves), rtol=1e-9, atol=1e-10)


# --- neutral parts and symmetries ------------------------------------------------------------------------------------


@given(cases(), SELECTORS)
def test_neutral_parts_change_nothing(case: Case, text: str) -> None:
    def each(method: str) -> Tensor:
        return onca.contrast(**arguments(case), method=method, reduction="none")

    plain = each("infonce")
    for neutral in (
        "chain(infonce)",
        "chain(keep(window(0, 100)), infonce)",
        "chain(drop(hardest(0)), infonce)",
        f"chain(keep({text} | ~{text}), infonce)",
        f"chain(drop({text} & ~{text}), infonce)",
        "chain(harden(0), infonce)",
        "chain(harden(0.0), mass)",
        "mass",
        "supcon",
        "total((1, infonce))",
        "total((0.25, infonce), (0.75, mass))",
    ):
        torch.testing.assert_close(each(neutral), plain, rtol=1e-9, atol=1e-11, msg=neutral)
    torch.testing.assert_close(each("chain(harden(0), debiased(0.1))"), each("debiased(0.1)"), rtol=1e-9, atol=1e-11)


@given(cases())
def test_debiased_with_no_prior_is_infonce_of_unit_rows(case: Case) -> None:
    """A row shorter than one could reach the floor, e^(-1/t), which no pair of unit rows does."""
    case = Case(case.query + 2, case.positive + 2, case.negatives, 0.5)  # type: ignore[operator]
    plain = onca.contrast(**arguments(case), reduction="none")
    torch.testing.assert_close(onca.contrast(**arguments(case), method="debiased(0)", reduction="none"), plain)


@given(cases(), CHAINS.filter(lambda text: "semihard" not in text), st.randoms(use_true_random=False))
def test_permuted_queries_have_permuted_losses(case: Case, text: str, random: Any) -> None:
    order = list(range(len(case.query)))
    random.shuffle(order)
    more = arguments(case)
    permuted = {
        k: v[order] if k in ("query", "positive", "label", "index", "support", "given") else v for k, v in more.items()
    }
    try:
        losses = onca.contrast(**more, method=text, reduction="none")
    except ValueError:
        with pytest.raises(ValueError):
            onca.contrast(**permuted, method=text)
        return
    got = onca.contrast(**permuted, method=text, reduction="none")
    torch.testing.assert_close(got, losses[order], rtol=1e-12, atol=1e-12)


@given(cases(), CHAINS.filter(lambda text: "semihard" not in text), st.integers(1, 4))
def test_slices_change_nothing(case: Case, text: str, width: int) -> None:
    results = []
    for count in (width, None):
        with onca.sliced.rows(count):
            try:
                results.append(onca.contrast(**arguments(case), method=text, reduction="none"))
            except ValueError as refusal:
                results.append(str(refusal))
    if isinstance(results[0], str):
        assert results[0] == results[1]
    else:
        torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


@given(
    cases(reserve=False), st.sampled_from(["infonce", "chain(keep(window(40, 90)), infonce)", "chain(harden(1), mass)"])
)
def test_turning_all_rows_alike_changes_nothing(case: Case, method: str) -> None:
    """Distinct scores, so that rounding cannot change a rank."""
    generator = torch.Generator().manual_seed(len(case.negatives[0]))
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    rows = [
        torch.randn(x.shape, generator=generator, dtype=torch.float64)
        for x in (case.query, case.query, *case.negatives)
    ]
    losses = onca.contrast(*rows, method, reduction="none")
    torch.testing.assert_close(onca.contrast(*(x @ turn for x in rows), method, reduction="none"), losses)


# --- text ------------------------------------------------------------------------------------------------------------


@given(CHAINS, st.integers(0, 3))
def test_every_expression_prints_and_reads_back(text: str, spaces: int) -> None:
    part = onca.read(text)
    assert str(part) == text
    assert onca.read(str(part)) == part
    padded = text.replace(",", "," + " " * spaces).replace("(", "( ")
    assert "".join(str(onca.read(padded)).split()) == "".join(text.split())


@given(SELECTORS)
def test_selectors_joined_in_python_read_back_as_what_they_were(text: str) -> None:
    part = eval(text, {name: getattr(onca, name) for name in onca.__all__})
    again = onca.read(str(part))
    assert again == part and str(again) == str(part)
    case = Case(torch.eye(3).double(), torch.eye(3).double(), [torch.arange(27).double().reshape(9, 3) / 8])
    more: dict[str, Any] = {"label": torch.arange(3), "index": torch.arange(3), "support": torch.ones(3, 1, 3).double()}
    more |= {"negative_label": torch.arange(9) % 3, "negative_index": torch.arange(9), "given": torch.ones(3, 9) > 0}
    pool = onca.pool(case.query, case.positive, case.negatives[0], **more)
    assert chosen(pool, again) == chosen(pool, part)


WORDS = [*"()&|~,.-= ", "keep", "hardest", "5", "1e9", "infonce", "by", "cosine", "chain", "True", "'"]


@given(st.one_of(st.text(max_size=40), st.lists(st.sampled_from(WORDS), max_size=12).map("".join)))
@settings(max_examples=200)
def test_no_text_does_anything_but_read_or_raise_value_error(text: str) -> None:
    try:
        part = onca.read(text)
    except ValueError:
        return
    assert onca.read(str(part)) == part
