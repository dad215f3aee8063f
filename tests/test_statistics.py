"""Estimates, differences and verdicts against scipy, hand numbers and the rule's own table; the paper as data."""

import math
from collections.abc import Mapping

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

import onca
from onca.study import find
from onca.study.judge import by_seed, judge, signed, words
from onca.study.plan import Claim
from onca.study.statistics import Estimate, difference, estimate, holm, paired_p, unpaired_p, verdict
from onca.study.studies.cai2020 import BASELINE, HARDEST
from onca.train import Run

PAPER = find("cai2020")

accuracies = st.integers(0, 6400).map(lambda n: n / 64)  # percent of 6,400 images
columns = st.lists(accuracies, min_size=2, max_size=8)


def test_an_estimate_is_what_the_t_table_says() -> None:
    found = estimate([1.0, 2.0, 4.0])
    assert found.n == 3
    assert found.mean == pytest.approx(7 / 3)
    assert found.sd == pytest.approx(math.sqrt(((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2))
    half = 4.302653 * found.sd / math.sqrt(3)  # the two-sided 95 % point of t with two degrees of freedom
    assert (found.low, found.high) == (pytest.approx(7 / 3 - half), pytest.approx(7 / 3 + half))


@given(columns)
def test_the_interval_is_that_of_scipy(values: list[float]) -> None:
    found = estimate(values)
    if found.sd == 0:
        assert found.low == found.mean == found.high
        return
    low, high = scipy.stats.t.interval(0.95, len(values) - 1, loc=found.mean, scale=scipy.stats.sem(values))
    assert found.low == pytest.approx(low, rel=1e-9, abs=1e-9)
    assert found.high == pytest.approx(high, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("value", [0.1, 55.3, 100 / 3])
def test_values_that_agree_leave_no_spread(value: float) -> None:
    assert estimate([value] * 3) == Estimate(3, value, 0.0, value, value)


def test_one_value_has_no_spread_and_no_interval() -> None:
    assert estimate([55.0]) == Estimate(1, 55.0, None, None, None)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_what_has_no_mean_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"no finished run|not finite"):
        estimate(values)


@given(st.lists(st.tuples(accuracies, accuracies), min_size=2, max_size=8))
def test_a_paired_difference_is_that_of_scipy(pairs: list[tuple[float, float]]) -> None:
    a, b = [p[0] for p in pairs], [p[1] for p in pairs]
    found = difference(dict(enumerate(a)), dict(enumerate(b)))
    assert found is not None
    assert found.left_out == ()
    spread = [x - y for x, y in pairs]
    if max(spread) == min(spread):
        assert found.estimate.low == found.estimate.high == spread[0]
        return
    interval = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
    assert found.estimate.low == pytest.approx(interval.low, rel=1e-6, abs=1e-6)
    assert found.estimate.high == pytest.approx(interval.high, rel=1e-6, abs=1e-6)


@given(st.lists(st.tuples(st.integers(-400, 400), st.integers(-400, 400), st.integers(-4000, 4000)), min_size=2))
def test_what_a_seed_does_to_both_cancels(triples: list[tuple[int, int, int]]) -> None:
    """Eighths add without rounding, so the paired difference must not move at all."""
    plain = difference(
        {i: a / 8 for i, (a, _, _) in enumerate(triples)}, {i: b / 8 for i, (_, b, _) in enumerate(triples)}
    )
    moved = difference(
        {i: (a + shift) / 8 for i, (a, _, shift) in enumerate(triples)},
        {i: (b + shift) / 8 for i, (_, b, shift) in enumerate(triples)},
    )
    assert plain is not None and moved is not None
    assert plain.estimate == moved.estimate


def test_seeds_without_a_partner_are_left_out_and_named() -> None:
    found = difference({0: 50.0, 1: 52.0, 3: 70.0}, {0: 49.0, 1: 50.0, 2: 10.0})
    assert found is not None
    assert found.by_seed == {0: 1.0, 1: 2.0}
    assert found.left_out == (2, 3)
    assert found.estimate.mean == pytest.approx(1.5)
    assert difference({0: 1.0}, {1: 1.0}) is None


def test_the_unpaired_test_is_students_with_equal_variances() -> None:
    a, b = [66.0, 66.5, 66.25], [64.5, 64.75, 65.0, 64.0]
    assert unpaired_p(a, b) == pytest.approx(scipy.stats.ttest_ind(a, b).pvalue)
    assert unpaired_p(a, b) != pytest.approx(scipy.stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert unpaired_p(b, a) == unpaired_p(a, b)


def test_the_unpaired_test_says_nothing_where_it_is_not_defined() -> None:
    assert unpaired_p([1.0], [2.0, 3.0]) is None
    assert unpaired_p([1.0, 1.0], [2.0, 2.0]) is None
    assert unpaired_p([1.0, 1.0], [2.0, 3.0]) is not None


@given(columns)
def test_the_paired_test_is_that_of_scipy(values: list[float]) -> None:
    if not any(values):
        assert paired_p(values) == 1.0
    elif max(values) == min(values):
        assert paired_p(values) is None
    else:
        assert paired_p(values) == pytest.approx(scipy.stats.ttest_1samp(values, 0).pvalue, rel=1e-9, abs=1e-12)


def test_one_difference_has_no_test() -> None:
    assert paired_p([1.0]) is None


def test_holms_steps_by_hand() -> None:
    """Sorted: 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.04; none may fall below one before it."""
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.001, 0.7]) == pytest.approx([1.0, 0.003, 1.0])
    assert holm([0.04]) == [0.04] and holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_what_holm_rejects_is_what_its_steps_reject(ps: list[float]) -> None:
    """The procedure as it is told: in order of p, reject while p <= alpha / (m - i), stop at the first that is not."""
    adjusted = holm(ps)
    for alpha in (0.01, 0.05, 0.2):
        rejected, m = set(), len(ps)
        for i, test in enumerate(sorted(range(m), key=lambda k: ps[k])):
            if ps[test] * (m - i) > alpha:
                break
            rejected.add(test)
        assert {k for k in range(m) if adjusted[k] <= alpha} == rejected
    assert all(p <= a <= 1 for p, a in zip(ps, adjusted, strict=True))


def _between(low: float, high: float) -> Estimate:
    return Estimate(3, (low + high) / 2, 1.0, low, high)


TABLE = [
    ("suffices", -0.99, 3.0, "shown"),
    ("suffices", -1.0, 3.0, "not shown"),
    ("suffices", -3.0, -1.0, "not shown"),
    ("suffices", -3.0, -1.01, "contradicted"),
    ("suffices", 1.0, 2.0, "shown"),
    ("does not hurt", -0.99, -0.2, "shown"),
    ("does not hurt", -1.0, 0.0, "not shown"),
    ("does not hurt", -2.0, -1.01, "contradicted"),
    ("accounts for", -1.0, 1.0, "shown"),
    ("accounts for", -1.01, 0.5, "not shown"),
    ("accounts for", -0.5, 1.01, "not shown"),
    ("accounts for", -2.0, 2.0, "not shown"),
    ("accounts for", 1.0, 2.0, "not shown"),
    ("accounts for", 1.01, 2.0, "contradicted"),
    ("accounts for", -2.0, -1.01, "contradicted"),
    ("worse", -2.0, -0.01, "shown"),
    ("worse", -2.0, 0.0, "not shown"),
    ("worse", 0.0, 2.0, "not shown"),
    ("worse", 0.01, 2.0, "contradicted"),
    ("helps", 0.01, 2.0, "shown"),
    ("helps", 0.0, 2.0, "not shown"),
    ("helps", -2.0, 0.0, "not shown"),
    ("helps", -2.0, -0.01, "contradicted"),
    ("worse", 0.0, 0.0, "not shown"),
    ("helps", 0.0, 0.0, "not shown"),
    ("accounts for", 0.0, 0.0, "shown"),
    ("suffices", -1.0, -1.0, "not shown"),
]


@pytest.mark.parametrize(("rule", "low", "high", "outcome"), TABLE)
def test_verdicts_at_the_limits(rule: str, low: float, high: float, outcome: str) -> None:
    assert verdict(rule, _between(low, high)).outcome == outcome  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["suffices", "does not hurt", "accounts for", "worse", "helps"])
def test_one_seed_shows_nothing(rule: str) -> None:
    found = verdict(rule, estimate([-5.0]))  # type: ignore[arg-type]
    assert found.outcome == "not shown"
    assert "one seed" in found.reason


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ValueError, match="suffices"):
        verdict("wins", _between(1, 2))  # type: ignore[arg-type]


ends = st.lists(st.floats(-3, 3), min_size=4, max_size=4).map(sorted)
rules = st.sampled_from(["suffices", "does not hurt", "accounts for", "worse", "helps"])


@given(rules, ends)
def test_a_narrower_interval_never_unsettles_a_verdict(rule: str, four: list[float]) -> None:
    wide, narrow = _between(four[0], four[3]), _between(four[1], four[2])
    settled = verdict(rule, wide).outcome  # type: ignore[arg-type]
    if settled != "not shown":
        assert verdict(rule, narrow).outcome == settled  # type: ignore[arg-type]


@given(ends)
def test_verdicts_agree_with_their_interval(four: list[float]) -> None:
    low, high = four[0], four[3]
    assert (verdict("worse", _between(low, high)).outcome == "not shown") == (low <= 0 <= high)
    assert (verdict("suffices", _between(low, high)).outcome == "not shown") == (low <= -1 <= high)
    mirrored = verdict("helps", _between(-high, -low)).outcome
    assert verdict("worse", _between(low, high)).outcome == mirrored
    opposite = {"shown": "contradicted", "contradicted": "shown", "not shown": "not shown"}
    assert verdict("helps", _between(low, high)).outcome == opposite[mirrored]
    both = verdict("accounts for", _between(low, high)).outcome, verdict("accounts for", _between(-high, -low)).outcome
    assert both[0] == both[1]


# --- rows and claims


def _rows(values: Mapping[str, list[float]]) -> list[dict[str, object]]:
    return [
        {"condition": name, "seed": seed, "linear_top1": value}
        for name, column in values.items()
        for seed, value in enumerate(column)
    ]


def test_a_seed_twice_is_refused_and_a_failed_run_left_out() -> None:
    rows = _rows({"baseline": [50.0, math.nan, 52.0]})
    assert by_seed(rows, "baseline", "linear_top1") == {0: 50.0, 2: 52.0}
    assert by_seed([{"condition": "baseline", "seed": "4", "linear_top1": "51.5"}], "baseline", "linear_top1") == {
        4: 51.5
    }
    with pytest.raises(ValueError, match="two runs with seed 0"):
        by_seed(rows + rows, "baseline", "linear_top1")


def _claim(key: str, a: str, b: str, rule: str, premise: str = "") -> Claim:
    return Claim(key, key, a, b, 0.1, rule, "", premise)  # type: ignore[arg-type]


def test_claims_are_judged_on_their_own_difference() -> None:
    rows = _rows({"baseline": [50.0, 51.0, 53.0], "good": [52.1, 53.0, 55.0], "bad": [40.0, 41.0, 43.2]})
    judged = judge(
        [
            _claim("up", "good", "baseline", "helps"),
            _claim("down", "bad", "baseline", "helps"),
            _claim("gone", "absent", "baseline", "helps"),
        ],
        rows,
    )
    assert [j.outcome for j in judged.values()] == ["shown", "contradicted", "not tested here"]
    assert "absent" in judged["gone"].reason
    assert judged["up"].difference is not None
    assert judged["up"].difference.estimate.mean == pytest.approx((2.1 + 2.0 + 2.0) / 3)


def test_a_claim_without_its_premise_is_marked() -> None:
    rows = _rows({"baseline": [50.0, 51.0, 53.0], "a": [50.0, 51.1, 53.0], "b": [50.1, 51.1, 53.0]})
    judged = judge([_claim("gain", "a", "baseline", "helps"), _claim("same", "b", "a", "accounts for", "gain")], rows)
    assert judged["gain"].outcome == "not shown"
    assert judged["same"].outcome == "shown"
    assert "gain" in judged["same"].caution


def test_worse_by_less_than_the_margin_is_marked() -> None:
    rows = _rows({"baseline": [50.0, 51.0, 53.0], "a": [49.5, 50.5, 52.4]})
    judged = judge([_claim("worse", "a", "baseline", "worse")], rows)
    assert judged["worse"].outcome == "shown"
    assert "1 point" in judged["worse"].caution


def test_a_gain_can_be_set_against_another_gain() -> None:
    """(a - b) - (c - d) seed by seed: a seed that one of the four lacks is no part of it."""
    rows = _rows({"a": [53.0, 55.1, 57.0], "b": [50.0, 52.0, 54.0], "c": [51.0, 53.0], "d": [50.0, 52.0]})
    more = Claim("more", "more", "a", "b", None, "helps", minus=("c", "d"))
    found = judge([more], rows)["more"].difference
    assert found is not None and found.by_seed == pytest.approx({0: 2.0, 1: 2.1}) and found.left_out == (2,)
    absent = judge([Claim("gone", "gone", "a", "b", None, "helps", minus=("c", "e"))], rows)["gone"]
    assert absent.outcome == "not tested here" and absent.reason == "no finished run of e"


def test_a_claim_can_be_about_another_number() -> None:
    rows = [{**row, "rotation_top1": 90.0 - float(str(row["seed"]))} for row in _rows({"a": [1.0, 2.0, 3.0]})]
    rows += [{**row, "rotation_top1": 60.0} for row in _rows({"b": [5.0, 6.0, 7.0]})]
    claim = Claim("turn", "turn", "a", "b", None, "helps", metric="rotation_top1")
    assert judge([claim], rows)["turn"].outcome == "shown"


def test_numbers_in_words() -> None:
    assert [signed(v) for v in (0.23, -1.5, 0.001, -0.001)] == ["+0.23", "−1.50", "0.00", "0.00"]
    assert words(_between(-1, 2)).replace("\u00a0", " ") == "+0.50 points [−1.00, +2.00], n = 3"
    assert "one seed" in words(estimate([1.0]))


def test_answers_follow_the_verdicts_and_carry_their_cautions() -> None:
    names = {c.kind for c in PAPER.conditions("demo", Run())}
    gains = {"keep 90-95": -4.0, "keep 85-90": -5.0, "drop 95-100": -3.0, "drop hardest 0.1%": -2.0}
    gains["drop hardest 0.1% same class"] = -2.0
    rows = _rows({name: [v + gains.get(name, 0.0) for v in (50.0, 51.5, 53.0)] for name in names})
    needed, useless, harmful = PAPER.answers(judge(PAPER.claims("demo", "moco"), rows))
    assert needed.headline == "The hardest 5 %" and "−3.00" in needed.sentences[0]
    assert useless.headline == "The easiest 95 %" and len(useless.sentences) == 1
    assert harmful.headline == "Not the hardest 0.1 %: they are missed"
    assert "contradicted" in harmful.sentences[1] and "says little here" in harmful.sentences[2]
    untested = PAPER.answers(judge(PAPER.claims("demo", "moco"), []))
    assert [(a.headline, a.sentences) for a in untested] == [("Not tested here", ())] * 3


# --- the paper as data

PRESETS = ("demo", "small", "paper")


def test_all_of_figures_2_and_3_and_table_1_are_there() -> None:
    conditions = PAPER.conditions("small", Run())
    figures = [figure for condition in conditions for figure in condition.figures]
    assert [figures.count(f) for f in ("figure 2 keep", "figure 2 drop", "figure 3", "table 1")] == [6, 6, 10, 12]
    assert len(conditions) == 28  # the 34 places share six runs
    windows = {c.method for c in conditions if "figure 2 keep" in c.figures}
    assert windows == {"infonce"} | {
        f"chain(keep(window({low}, {high})), infonce)"
        for low, high in ((85, 90), (90, 95), (95, 100), (85, 100), (90, 100))
    }
    assert {c.temperature for c in conditions if "figure 3" in c.figures} == {0.07, 0.1, 0.15, 0.2, 0.3}


@pytest.mark.parametrize("host", ["moco", "simclr"])
@pytest.mark.parametrize("preset", PRESETS)
def test_conditions_are_one_run_each_and_can_be_read(preset: str, host: str) -> None:
    conditions = PAPER.conditions(preset, Run(host=host))
    assert len({(c.method, c.temperature) for c in conditions}) == len({c.name for c in conditions}) == len(conditions)
    assert conditions[0].kind == BASELINE
    for condition in conditions:
        assert str(onca.read(condition.method)).replace(" ", "") == condition.method.replace(" ", "")
        assert condition.needs_labels == ("same_class" in condition.method)
        refills = "figure 3" in condition.figures or "table 1" in condition.figures
        assert ("refill" in condition.method) == (refills and host == "moco" and condition.kind != BASELINE)
        assert bool(condition.note) == (refills and host == "simclr" and condition.kind != BASELINE)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_claim_can_be_tested(preset: str) -> None:
    at = {c.name: c.temperature for c in PAPER.conditions(preset, Run())}
    claims = PAPER.claims(preset, "moco")
    for claim in claims:
        assert at[claim.a] == at[claim.b] == claim.temperature
    asked = {key for band in PAPER.bands for _, key in band.statements} | {"second", "third", "accounts"}
    assert asked <= {claim.key for claim in claims}
    assert {claim.premise for claim in claims} <= {"", *(claim.key for claim in claims)}


def test_the_demo_is_small() -> None:
    assert len(PAPER.conditions("demo", Run())) <= 11


def test_the_papers_own_verdicts_follow_from_its_numbers() -> None:
    """What the paper says in words must follow from the means that stand here, or one was copied wrongly."""
    table = {(r.kind, r.temperature): r for r in PAPER.reported if r.temperature is not None}
    windows = {r.kind: r for r in PAPER.reported if r.temperature is None}
    assert table[HARDEST, 0.07].top1 - table[BASELINE, 0.07].top1 == pytest.approx(1.47)
    assert table[HARDEST, 0.2].top1 - table[BASELINE, 0.2].top1 == pytest.approx(0.16)
    assert len(table) == 12
    assert windows["keep 85-90"].top1 < windows["keep 90-95"].top1 < windows["keep 95-100"].top1
    assert windows["drop 85-100"].top1 < windows["drop 90-100"].top1 < windows["drop 95-100"].top1
    assert all(r.top1 < r.top5 for r in PAPER.reported)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match="cai2020"):
        find("cai2021")
    with pytest.raises(ValueError, match="demo, small, paper"):
        PAPER.conditions("large", Run())
