"""Expressions: what `onca.read` takes and keeps as text, what it refuses, and numbers that change with the epoch."""

import math
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from oracle import Case
from pools import B, D, N, rows

import onca
from onca.part import NAMES
from onca.selector import Selector

TEXTS = """
infonce
supcon
mass
debiased()
debiased(0.1)
debiased(tau_plus=0.1)
triplet(0.2)
chain(infonce)
chain(keep(window(90, 95)), infonce)
chain(keep(window(90.0, 95.00)), infonce)
chain(keep(window(low=90, high=95)), infonce)
chain(keep(window(90, 95, by=cosine)), infonce)
chain(keep(window(90, 95, by=random)), infonce)
chain(drop(hardest(0.1), refill=True), infonce)
chain(drop(hardest(0.10), refill=False), infonce)
chain(drop(hardest(1e-1)), infonce)
chain(drop(hardest(percent=5)), infonce)
chain(drop(easiest(.5)), infonce)
chain(drop(same_class, refill=True), infonce)
chain(drop(hardest(0.1) & same_class, refill=True), infonce)
chain(drop(hardest(0.1) & ~same_class, refill=True), infonce)
chain(drop(same_class & ~hardest(0.1), refill=True), infonce)
chain(drop((given | same_image) & hardest(5)), infonce)
chain(drop(given | same_image & hardest(5)), infonce)
chain(drop(~(given | same_image)), infonce)
chain(drop(~~given), infonce)
chain(drop(given & (same_class & hardest(5))), infonce)
chain(drop(nearest(10, by=support_max) & above(0.7, by=support_max)), infonce)
chain(attract(nearest(k=10, by=support_mean) & above(threshold=-0.7)), supcon)
chain(drop(farthest(10)), infonce)
chain(keep(semihard(0.2)), triplet(0.2))
chain(keep(semihard(margin=0.2)), triplet(margin=0.2))
chain(harden(1), debiased(0.1))
chain(harden(beta=1.0), debiased(0.1))
chain(drop(hardest(0.1), refill=True), harden(0.5), debiased(0.1))
total((1, infonce))
total((1.0, infonce), (after(30, 0.6), chain(keep(hardest(50)), supcon)))
total((1, infonce), (-0.5, mass))
chain(keep(hardest(ramp(100, 5, 50))), infonce)
chain(harden(cosine_decay(start=1, end=0, epochs=100)), infonce)
""".strip().splitlines()

WORDS = """
window hardest easiest nearest farthest above semihard sample same_class same_image near_duplicate given reached
keep drop attract harden add infonce supcon mass debiased triplet chain total after ramp cosine_decay
cosine support_max support_mean label_distance random read contrast pool Contrast Queue
"""


def squeezed(text: str) -> str:
    return "".join(text.split())


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORDS.split())
def test_the_names_of_the_contract_are_attributes_of_onca(name: str) -> None:
    assert hasattr(onca, name)


@pytest.mark.parametrize("text", TEXTS)
def test_the_text_is_kept_as_written(text: str) -> None:
    part = onca.read(text)
    assert str(part) == repr(part) == text
    assert onca.read(str(part)) == part
    assert hash(onca.read(text)) == hash(part)


@pytest.mark.parametrize(
    "text",
    [
        "  chain( keep(window( 90,95 )),infonce )\n",
        "chain(\n    drop(hardest(0.1) & same_class, refill = True),\n    infonce,\n)",
        "chain(drop(hardest(0.1)&~ same_class),infonce)",
        "(chain(keep((hardest(5))), (infonce)))",
        "chain(keep(((given) | (same_class))), infonce)",
        "(given | same_class)",
        "above(- 0.5)",
    ],
)
def test_white_space_is_all_that_may_change(text: str) -> None:
    assert squeezed(str(onca.read(text))) == squeezed(text)


def test_the_same_text_is_the_same_part_until_a_name_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert onca.read(" keep(hardest(5))") is onca.read("keep(hardest(5))")
    assert onca.read("keep( hardest(5))") == onca.read("keep(hardest(5))")
    monkeypatch.setitem(NAMES, "newcomer", None)  # taken away again afterwards
    first = type("newcomer", (Selector,), {}, name="newcomer")
    assert type(onca.read("newcomer()")) is first
    second = type("newcomer", (Selector,), {}, name="newcomer")
    assert type(onca.read("newcomer()")) is second


def test_parts_made_in_python_print_as_expressions() -> None:
    made = onca.chain(onca.drop(onca.hardest(0.1) & ~onca.same_class, refill=True), onca.infonce)
    assert str(made) == "chain(drop(hardest(0.1) & ~same_class, refill=True), infonce)"
    assert onca.read(str(made)) == made
    assert str(onca.window(90, 95)) == "window(90, 95)"
    assert str(onca.window(90, 95, by=onca.cosine)) == "window(90, 95, by=cosine)"
    assert str(onca.total((1.0, onca.infonce), (onca.after(30, 0.6), onca.mass))) == (
        "total((1.0, infonce), (after(30, 0.6), mass))"
    )


@pytest.mark.parametrize("number", [np.float64(0.1), np.float64(5)])
def test_numbers_of_numpy_print_as_numbers(number: float) -> None:
    part = onca.hardest(number)
    assert onca.read(str(part)) == part
    assert "np" not in str(part)


def test_parentheses_are_printed_where_they_change_the_meaning() -> None:
    a, b, c = onca.given, onca.same_class, onca.hardest(5)
    for part, text in (
        ((a | b) & c, "(given | same_class) & hardest(5)"),
        (a | b & c, "given | same_class & hardest(5)"),
        (~(a & b), "~(given & same_class)"),
        (~a & b, "~given & same_class"),
        (a & b & c, "given & same_class & hardest(5)"),
    ):
        assert str(part) == text
        assert onca.read(text) == part
    for part in (a & (b & c), a | (b | c), a & (b | c), ~(a | ~(b & c))):
        again = onca.read(str(part))
        assert str(again) == str(part) and again == part


def test_spellings_of_a_number_are_one_number() -> None:
    inputs = rows(B, D, seed=5), rows(B, D, seed=6), rows(500, D, seed=7)
    losses = [
        onca.contrast(*inputs, f"chain(drop(hardest({number})), infonce)") for number in ("0.1", "0.10", "1e-1", ".1")
    ]
    assert len({float(loss) for loss in losses}) == 1
    assert float(losses[0]) != float(onca.contrast(*inputs))


# --- refusals --------------------------------------------------------------------------------------------------------

REFUSED = """
infonce infonce
1
-1
"infonce"
None
True
...
hardest
keep
chain
keep(hardest)
keep(infonce)
keep(harden(1))
keep(5)
keep()
keep(given, same_class)
infonce()
same_class(3)
chain()
chain(keep(hardest(5)))
chain(infonce, keep(hardest(5)))
chain(infonce, infonce)
chain(hardest(5), infonce)
chain((keep(hardest(5)), infonce))
total()
total(infonce)
total((1, infonce, 2))
total((infonce, 1))
total((1, hardest(5)))
total((1, keep(hardest(5))))
total(("1", infonce))
hardest()
hardest(5, 6, 7)
hardest(percentage=5)
hardest(5, percent=5)
hardest("5")
hardest(True)
hardest((5,))
hardest(infonce)
hardest(5, by=infonce)
hardest(5, by="cosine")
hardest(1 + 1)
hardest(+5)
hardest(5j)
hardest(not True)
hardest(nan)
hardest(1e999)
hardest(*given)
hardest(**given)
hardest(5)(6)
hardest(5).by
hardest(5)[0]
hardest(5) and same_class
hardest(5) or same_class
not same_class
hardest(5) < same_class
hardest(5) + same_class
hardest(5) ^ same_class
hardest(5) & infonce
hardest(5) & 3
~infonce
~cosine
-same_class
(infonce, supcon)
[infonce]
{infonce}
{"a": infonce}
infonce if True else supcon
lambda: infonce
[x for x in given]
(x := infonce)
f"{infonce}"
b"infonce"
import os
__import__("os")
__import__("os").system("true")
open("x")
print
Part
read("infonce")
infonce; supcon
x = infonce
await infonce
after(10)
after("10", 1)
ramp(1, 0, 0)
ramp(1, 0, -3)
chain(drop(given, refill=given), infonce)
""".strip().splitlines()


@pytest.mark.parametrize(
    "text", [*REFUSED, "", "   ", "(" * 300 + "infonce" + ")" * 300 + ")", "~" * 100_000, "inf\0once"]
)
def test_all_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError) as refusal:
        onca.read(text)
    message = str(refusal.value)
    assert type(refusal.value).__module__ != "builtins" or type(refusal.value) is ValueError
    assert message and "Traceback" not in message and "object at 0x" not in message


@pytest.mark.parametrize("nothing", [None, 3, ["infonce"]])
def test_read_takes_text(nothing: Any) -> None:
    with pytest.raises(ValueError, match="text"):
        onca.read(nothing)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("infonc", "infonce"),
        ("chain(keep(hardset(5)), infonce)", "hardest"),
        ("chain(drop(same_clas), infonce)", "same_class"),
        ("chain(keep(windows(5, 10)), infonce)", "window"),
        ("chain(keep(window(90, 95, by=support_maximum)), infonce)", "support_max"),
        ("chian(infonce)", "chain"),
        ("chain(drop(hardest(5), refil=True), infonce)", "refill"),
        ("debiased(tau=0.1)", "tau_plus"),
        ("chain(harden(after(10, 1), bta=1), infonce)", "beta"),
    ],
)
def test_the_nearest_names_are_offered(text: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"\b{meant}\b"):
        onca.read(text)


def test_a_refusal_shows_the_expression() -> None:
    with pytest.raises(ValueError, match=r"chain\(keep\(hardset\(5\)\), infonce\)"):
        onca.read("chain(keep(hardset(5)), infonce)")


# --- numbers that change with the epoch ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "course"),
    [
        ("after(10, 0.6)", {0: 0, 9.99: 0, 10: 0, 10.01: 0.6, 50: 0.6}),
        ("ramp(1, 3, 10)", {0: 1, 2.5: 1.5, 5: 2, 10: 3, 99: 3}),
        ("ramp(0.5, 0.1, 4)", {0: 0.5, 1: 0.4, 4: 0.1, 5: 0.1}),
        ("cosine_decay(1, 0.2, 10)", {0: 1, 5: 0.6, 2.5: 0.6 + 0.4 * math.cos(math.pi / 4), 10: 0.2, 11: 0.2}),
    ],
)
def test_schedules(text: str, course: dict[float, float]) -> None:
    schedule = onca.read(text)
    for epoch, value in course.items():
        assert schedule(epoch) == pytest.approx(value, abs=1e-12), epoch


INPUTS = rows(B, D, seed=5), rows(B, D, seed=6), rows(N, D, seed=7)


@pytest.mark.parametrize(
    ("scheduled", "plain"),
    [
        ("chain(keep(hardest(ramp(100, 20, 8))), infonce)", "chain(keep(hardest(80)), infonce)"),
        ("chain(keep(window(ramp(0, 40, 4), after(1, 90))), infonce)", "chain(keep(window(20, 90)), infonce)"),
        ("chain(drop(nearest(ramp(2, 10, 8))), infonce)", "chain(drop(nearest(4)), infonce)"),
        ("chain(drop(above(ramp(0, 0.8, 8))), infonce)", "chain(drop(above(0.2)), infonce)"),
        ("chain(harden(after(1, 0.5)), infonce)", "chain(harden(0.5), infonce)"),
        ("chain(harden(after(2, 0.5)), infonce)", "infonce"),
        ("debiased(cosine_decay(0.2, 0.1, 4))", "debiased(0.15)"),
        ("triplet(ramp(0, 1, 4))", "triplet(0.5)"),
        ("total((after(2, 0.6), mass), (ramp(0, 1, 4), infonce))", "total((0.5, infonce))"),
    ],
)
def test_any_number_may_be_a_schedule(scheduled: str, plain: str) -> None:
    at_two = onca.contrast(*INPUTS, scheduled, epoch=2.0, reduction="none")
    torch.testing.assert_close(at_two, onca.contrast(*INPUTS, plain, reduction="none"), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(
        at_two, oracle.losses(scheduled, Case(INPUTS[0], INPUTS[1], [INPUTS[2]], epoch=2.0)), rtol=1e-9, atol=1e-11
    )
    with pytest.raises(ValueError, match="epoch"):
        onca.contrast(*INPUTS, scheduled)


def test_the_temperature_may_be_a_schedule() -> None:
    warm = onca.ramp(0.5, 0.1, 4)
    for epoch, temperature in ((0.0, 0.5), (2.0, 0.3), (9.0, 0.1)):
        got = onca.contrast(*INPUTS, temperature=warm, epoch=epoch)
        torch.testing.assert_close(got, onca.contrast(*INPUTS, temperature=temperature), rtol=1e-9, atol=1e-11)
    with pytest.raises(ValueError, match=r"ramp\(0.5, 0.1, 4\).*epoch"):
        onca.contrast(*INPUTS, temperature=warm)
    module = onca.Contrast("infonce", warm, memory=onca.Queue(8, D))
    with pytest.raises(ValueError, match="epoch"):
        module(INPUTS[0].float(), INPUTS[1].float())
    module(INPUTS[0].float(), INPUTS[1].float(), epoch=1.0)


@pytest.mark.parametrize(
    ("method", "temperature"),
    [("chain(keep(hardest(ramp(50, 200, 10))), infonce)", 0.2), ("infonce", onca.ramp(0.1, 0, 10))],
)
def test_a_schedule_that_leaves_its_range_is_refused_when_it_does(method: str, temperature: Any) -> None:
    onca.contrast(*INPUTS, method, temperature, epoch=0.0)
    with pytest.raises(ValueError, match="ramp"):
        onca.contrast(*INPUTS, method, temperature, epoch=10.0)
