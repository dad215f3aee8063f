"""Bad input to the algebra: one ValueError that names the cause, in the user's own expression, numbers and shapes."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pools import B, D, N, S, rows

import onca

Tensor = torch.Tensor
QUERY, POSITIVE, KEYS = rows(B, D, seed=5), rows(B, D, seed=6), rows(N, D, seed=7)


def refusal(call: Callable[[], Any], *words: str) -> None:
    """The call raises a ValueError of one readable line that holds all words, white space apart."""
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert message.strip() and "\n" not in message and len(message) < 400, message
    assert "object at 0x" not in message, message
    tight = "".join(message.split())
    missing = [word for word in words if "".join(word.split()) not in tight]
    assert not missing, f"not in the message: {missing}; {message}"


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["window(95, 90)", "window(-5, 10)", "window(0, 101)", "window(low=95, high=90)", "hardest(-0.1)", "hardest(100.1)",
     "hardest(1000)", "easiest(-1)", "easiest(101)", "nearest(-1)", "nearest(2.5)", "farthest(-3)", "debiased(1)",
     "debiased(-0.1)", "debiased(1.5)", "sample(-1)"],
)  # fmt: skip
def test_a_number_out_of_range_is_refused_when_the_expression_is_read(text: str) -> None:
    refusal(lambda: onca.read(text), text)


@pytest.mark.parametrize("make", [lambda x: onca.hardest(x), lambda x: onca.above(x), lambda x: onca.harden(x)])
@pytest.mark.parametrize("number", [math.nan, math.inf, "5", None, True, (5,)])
def test_what_is_no_number_is_refused(make: Callable[[Any], Any], number: Any) -> None:
    refusal(lambda: make(number))


def test_a_window_the_wrong_way_round_says_how_it_goes() -> None:
    refusal(lambda: onca.read("chain(keep(window(95, 90)), infonce)"), "window(95, 90)", "order")
    refusal(lambda: onca.window(95, 90), "window(95, 90)")


@pytest.mark.parametrize("temperature", [0, 0.0, -0.1, math.nan, math.inf, "0.1", None])
def test_a_temperature_is_above_zero(temperature: Any) -> None:
    refusal(lambda: onca.contrast(QUERY, POSITIVE, KEYS, temperature=temperature), "temperature")
    refusal(lambda: onca.pool(QUERY, POSITIVE, KEYS, temperature), "temperature")
    refusal(lambda: onca.Contrast("infonce", temperature, memory=onca.Queue(8, D)), "temperature")


def test_other_arguments() -> None:
    refusal(lambda: onca.contrast(QUERY, POSITIVE, KEYS, reduction="average"), "reduction", "average", "mean")
    refusal(lambda: onca.contrast(QUERY, POSITIVE, KEYS, "hardest(5)"), "hardest(5)")
    refusal(lambda: onca.contrast(QUERY, POSITIVE, KEYS, "keep(hardest(5))"), "keep(hardest(5))", "chain")
    refusal(lambda: onca.contrast(QUERY, POSITIVE, KEYS, 5), "5")  # type: ignore[arg-type]
    refusal(lambda: onca.contrast(QUERY, POSITIVE, KEYS, "infonc"), "infonce")
    refusal(lambda: onca.pool(QUERY, POSITIVE, KEYS, reserve=-1), "reserve", "-1")
    refusal(lambda: onca.pool(QUERY, POSITIVE, KEYS, reserve=N + 1), "reserve", str(N + 1))
    refusal(lambda: onca.pool(QUERY, POSITIVE, rows(B, N, D, seed=7), reserve=3), "reserve", f"[{B}, {N}, {D}]")
    refusal(lambda: onca.Contrast("infonce", 0.2), "memory", "Queue")
    for size, dim, reserve in ((0, D, 0), (-4, D, 0), (4, 0, 0), (4, D, -1)):
        refusal(lambda size=size, dim=dim, reserve=reserve: onca.Queue(size, dim, reserve), "Queue")


# --- no negatives left -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "n"),
    [
        ("keep(hardest(1))", N),
        ("keep(window(50, 51))", N),
        ("keep(hardest(5))", 5),
        ("drop(hardest(100))", N),
        ("drop(window(0, 100))", N),
        ("drop(above(-1.1))", N),
        ("keep(above(1.1))", N),
        ("keep(given)", N),
        ("drop(hardest(50)), keep(hardest(1))", N),
        ("drop(nearest(30))", N),
    ],
)
@pytest.mark.parametrize("objective", ["infonce", "mass", "debiased(0.1)", "supcon"])
def test_rules_that_leave_no_query_any_negatives(rule: str, n: int, objective: str) -> None:
    text = f"chain({rule}, {objective})"
    given = torch.zeros(B, n, dtype=torch.bool)
    refusal(lambda: onca.contrast(QUERY, POSITIVE, KEYS[:n], text, given=given), text, str(n))


def test_in_a_total_the_chain_that_leaves_none_is_named() -> None:
    text = "chain(keep(hardest(1)), infonce)"
    refusal(lambda: onca.contrast(QUERY, POSITIVE, KEYS, f"total((1, infonce), (0.5, {text}))"), text, str(N))


def test_one_query_with_negatives_is_enough() -> None:
    given = torch.zeros(B, N, dtype=torch.bool)
    given[2, 3] = True
    losses = onca.contrast(QUERY, POSITIVE, KEYS, "chain(keep(given), infonce)", given=given, reduction="none")
    assert losses.nonzero().tolist() == [[2]]


def test_entries_that_are_all_the_own_image_are_an_empty_memory() -> None:
    own = torch.zeros(B, dtype=torch.int64)
    keys = torch.zeros(N, dtype=torch.int64)
    for text in ("infonce", "chain(keep(hardest(5)), infonce)", "chain(drop(same_image), mass)"):
        assert float(onca.contrast(QUERY, POSITIVE, KEYS, text, index=own, negative_index=keys)) == 0


# --- what a selector needs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "more", "words"),
    [
        ("drop(same_class)", {}, ["same_class", "label"]),
        ("drop(same_class)", {"label": torch.zeros(B, dtype=torch.int64)}, ["same_class", "negative_label"]),
        ("drop(same_class)", {"negative_label": torch.zeros(N, dtype=torch.int64)}, ["same_class", "label"]),
        ("keep(hardest(5) & ~same_class)", {}, ["same_class", "label"]),
        ("drop(same_image)", {}, ["same_image", "index"]),
        ("drop(given)", {}, ["given"]),
        ("drop(nearest(3, by=support_max))", {}, ["support"]),
        ("drop(above(0.5, by=support_mean))", {}, ["support"]),
        ("drop(hardest(5, by=label_distance))", {}, ["label_distance"]),
        ("drop(reached(2))", {}, ["reached(2)"]),
        ("drop(near_duplicate)", {}, ["near_duplicate"]),
        ("drop(hardest(ramp(1, 5, 10)))", {}, ["ramp(1, 5, 10)", "epoch"]),
    ],
)
def test_what_a_selector_needs_and_has_not(rule: str, more: dict[str, Any], words: list[str]) -> None:
    refusal(lambda: onca.contrast(QUERY, POSITIVE, KEYS, f"chain({rule}, infonce)", **more), *words)


@pytest.mark.parametrize("positive", [None, torch.zeros(B, 0, D, dtype=torch.float64)])
@pytest.mark.parametrize(
    "method", ["infonce", "mass", "debiased(0.1)", "triplet(0.2)", "chain(keep(semihard(0.2)), supcon)"]
)
def test_positives_are_needed(method: str, positive: Tensor | None) -> None:
    refusal(lambda: onca.contrast(QUERY, positive, KEYS, method), "positive")


# --- shapes ----------------------------------------------------------------------------------------------------------

whole = torch.zeros(N + 1, dtype=torch.int64)
SHAPES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "query": ({"query": QUERY[0]}, ["query", f"[{D}]"]),
    "positive rows": ({"positive": POSITIVE[:-1]}, ["positive", f"[{B}, {D}]", f"[{B - 1}, {D}]"]),
    "positive width": ({"positive": POSITIVE[:, :-1]}, ["positive", f"[{B}, {D}]", f"[{B}, {D - 1}]"]),
    "several positives": ({"positive": rows(B, 2, D + 1, seed=1)}, ["positive", f"[{B}, 2, {D + 1}]"]),
    "negatives width": ({"negatives": KEYS[:, :-1]}, ["negatives", f"[{B}, {D}]", f"[{N}, {D - 1}]"]),
    "negatives per query": ({"negatives": rows(B + 1, N, D, seed=1)}, ["negatives", f"[{B + 1}, {N}, {D}]"]),
    "negatives dimensions": ({"negatives": KEYS[0]}, ["negatives", f"[{D}]"]),
    "one of a list": ({"negatives": [KEYS, KEYS[:, 1:]]}, ["negatives", f"[{N}, {D - 1}]"]),
    "label": ({"label": whole[: B + 1]}, ["label", f"[{B + 1}]"]),
    "index": ({"index": whole[: B - 1]}, ["index", f"[{B - 1}]"]),
    "negative_label": ({"negative_label": whole}, ["negative_label", f"[{N + 1}]"]),
    "negative_index": ({"negative_index": whole.expand(B, -1)}, ["negative_index", f"[{B}, {N + 1}]"]),
    "list of labels": ({"negatives": [KEYS, KEYS], "negative_label": [whole[:N]]}, ["negative_label", "2"]),
    "label of a list": ({"negatives": [KEYS, KEYS], "negative_label": whole[:N]}, ["negative_label", "list"]),
    "list for one": ({"negative_index": [whole[:N], whole[:N]]}, ["negative_index"]),
    "given": ({"given": torch.zeros(B, N + 1, dtype=torch.bool)}, ["given", f"[{B}, {N + 1}]"]),
    "support": ({"support": rows(B - 1, S, D, seed=1)}, ["support", f"[{B - 1}, {S}, {D}]"]),
    "support width": ({"support": rows(B, S, D - 1, seed=1)}, ["support", f"[{B}, {S}, {D - 1}]"]),
}  # fmt: skip


@pytest.mark.parametrize("case", SHAPES)
def test_shapes_that_do_not_fit_are_shown(case: str) -> None:
    more, words = SHAPES[case]
    arguments = {"query": QUERY, "positive": POSITIVE, "negatives": KEYS, **more}
    refusal(lambda: onca.pool(**arguments), *words)
    text = "chain(keep(hardest(50)), infonce)"
    refusal(lambda: onca.contrast(**arguments, method=text), *words, text)


def test_keys_that_do_not_fit_the_memory() -> None:
    contrast = onca.Contrast("chain(keep(hardest(50)), infonce)", 0.2, memory=onca.Queue(8, D))
    refusal(lambda: contrast(rows(B, D + 1, seed=1), rows(B, D + 1, seed=2)), f"[{B}, {D + 1}]", str(D))
    refusal(lambda: contrast(rows(B, D, seed=1), rows(B + 1, D, seed=2)), f"[{B}, {D}]", f"[{B + 1}, {D}]")
    refusal(lambda: contrast(rows(B, D, seed=1), rows(B, D, seed=2), index=whole[: B + 1]), "index", f"[{B + 1}]")
    refusal(lambda: contrast(rows(B, D, seed=1), rows(B, D, seed=2), label=whole[: B + 1]), "label", f"[{B + 1}]")
    assert int((contrast.memory.age >= 0).sum()) == 0  # nothing of a refused batch went in


# --- losses that are not finite --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "normalize"), [(math.nan, True), (math.nan, False), (math.inf, True)])
@pytest.mark.parametrize("method", ["infonce", "chain(keep(hardest(50)), infonce)", "chain(harden(1), debiased(0.1))"])
@pytest.mark.parametrize(("name", "row"), [("query", 3), ("positive", 2), ("negatives", 17)])
def test_a_loss_that_is_not_finite_is_traced(name: str, row: int, method: str, normalize: bool, value: float) -> None:
    inputs = {"query": QUERY.clone(), "positive": POSITIVE.clone(), "negatives": KEYS.clone()}
    inputs[name][row, 1] = value
    for reduction in ("mean", "none"):
        refusal(
            lambda reduction=reduction: onca.contrast(
                **inputs, method=method, normalize=normalize, reduction=reduction
            ),
            name,
            str(row),
        )


def test_a_row_of_negatives_for_each_query_is_traced() -> None:
    keys = rows(B, N, D, seed=7)
    keys[3, 17, 0] = math.nan
    refusal(lambda: onca.contrast(QUERY, POSITIVE, keys), "negatives", "3, 17")
    several = [KEYS.clone(), KEYS.clone()]
    several[1][17] = math.nan
    refusal(lambda: onca.contrast(QUERY, POSITIVE, several), "negatives", "17")


def test_a_memory_does_not_take_keys_that_are_not_finite() -> None:
    contrast = onca.Contrast("infonce", 0.2, memory=onca.Queue(8, D))
    query, key = rows(B, D, seed=1), rows(B, D, seed=2)
    contrast(query, key)
    before = contrast.memory.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    key[1, 0] = math.nan
    refusal(lambda: contrast(query, key), "row 1")
    assert all(torch.equal(value, before[name]) for name, value in contrast.memory.state_dict().items())


def test_a_loss_that_is_not_finite_though_its_inputs_are() -> None:
    huge = [1e30 * x.float() for x in (QUERY, POSITIVE, KEYS)]
    refusal(lambda: onca.contrast(*huge, normalize=False), "finite")
