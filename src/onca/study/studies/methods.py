"""The methods of the literature and what is new here, side by side on one host at equal compute.

Every row trains on the same images with the same seeds; those of one host start from the same weights and see the same
views in the same order. Settings are those of the papers; where a setting is tied to ImageNet's numbers (65,536 keys,
800 epochs) it is scaled as the row says, and where it is known not to transfer up to three settings, the paper's first,
are tried on the validation part with a seed of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from onca.study.plan import Changes, Choice, Condition, Study, Table
from onca.study.studies.question import DEMO
from onca.train import Run

BASELINE, NULL, ORACLE = "baseline", "baseline again (null control)", "same class dropped (oracle)"
METHODS, HOSTS = "methods", "hosts"
LITERATURE_KEYS = 65_536  # MoCo's queue on ImageNet, which MoCHi's numbers belong to


def row(
    kind: str,
    method: str,
    source: str,
    changes: Changes = (),
    *,
    others: Sequence[str] = (),
    tried: Sequence[Changes] = (),
    table: str = METHODS,
    against: str = BASELINE,
    labels: bool = False,
    control: str = "",
) -> Condition:
    """A row of the comparison. others, tried: further methods, or changes of the same one, to choose among on the
    validation part.
    """
    ways = dict.fromkeys(
        [(method, changes), *((each, changes) for each in others), *((method, each) for each in tried)]
    )
    choices = tuple(Choice(*way) for way in ways) if len(ways) > 1 else ()
    return Condition(
        kind, method, None, (table,), labels, against=against, changes=changes, choices=choices, source=source,
        control=control,
    )  # fmt: skip


def conditions(preset: str, run: Run) -> tuple[Condition, ...]:
    """All rows that the host can run: a batch's own negatives have no memory and no older entries."""
    plain = Condition(BASELINE, "infonce", None, (METHODS, HOSTS), source="InfoNCE of the host as it is")
    rows = (plain, *_published(run), *_positives(run), *_new(run), *_labelled(run))
    return rows if run.host == "simclr" else (*rows, *_memories(run), *_hosts(run))


def _refilled(run: Run, chosen: str) -> str:
    return f"chain(drop({chosen}{'' if run.host == 'simclr' else ', refill=True'}), infonce)"


def _published(run: Run) -> tuple[Condition, ...]:
    """Negatives: which count, and how much."""

    def mixed(n: int, s: int, s2: int) -> str:
        return f"chain(mochi(n={n}, s={s}, s2={s2}), infonce)"

    def apart(boundary: float) -> str:
        return f'chain(keep(sample(64, weight="distance")), margin(boundary={boundary:g}))'

    share = max(1, round(LITERATURE_KEYS / run.queue))
    scaled = tuple(max(1, number // share) for number in (1024, 1024, 128))
    return (
        row(NULL, "chain(drop(sample(1)), infonce)", "one random negative left out, so that only chance differs",
            control="null"),
        row("hardest 0.1 % dropped", _refilled(run, "hardest(0.1)"), "2010.06682, Table 1"),
        row("hardest 5 % only", "chain(keep(hardest(5)), infonce)", "2010.06682, Figure 2"),
        row("debiased", "debiased(0.1)", "2007.00224: tau_plus 0.1 (at temperature 0.5)",
            others=("debiased(0.03)", "debiased(0.01)")),
        row("hcl", "hcl(beta=1, tau_plus=0.1)",
            "2010.04592: beta 1, tau_plus 0.1 (temperature 0.5); with MoCo beta 0.2, tau_plus 0",
            others=("hcl(beta=0.2, tau_plus=0)", "hcl(beta=0.2, tau_plus=0.01)")),
        row("ring", "chain(ring(outer=10, inner=1), infonce)", "2010.02037: ranks from 1 to 10 %, without annealing"),
        row("ball", "chain(ball(10), infonce)", "2010.02037: the hardest 10 %"),
        row("mochi", mixed(*scaled),
            f"2010.01028: n 1024, s 1024, s' 128 of {LITERATURE_KEYS:,} keys, each divided by {share}",
            others=(mixed(*(4 * each for each in scaled)), mixed(1024, 1024, 128))),
        row("triplet, semi-hard", "chain(keep(semihard(0.2)), triplet(0.2))", "1503.03832: margin 0.2, in cosine"),
        row("margin, distance-weighted", apart(1.2), "1706.07567: boundary 1.2, alpha 0.2; 64 negatives a query",
            others=(apart(0.9), apart(0.6))),
    )  # fmt: skip


def _positives(run: Run) -> tuple[Condition, ...]:
    """Support views and crops: what is a positive, and what does it show?"""
    support: Changes = (("support", 4),)

    def fnc(k: int, threshold: float, attraction: bool) -> str:
        return f"fnc(k={k}, threshold={threshold:g}, attraction={attraction})"

    when = max(1, run.epochs // 5)
    followed = f"contrastive_crop(alpha=0.6, threshold=0.1, warmup={when}, interval={when})"
    told = "2011.11765: k 10 of 65,536, threshold 0.7; 4 support views (8 there)"
    return (
        row("support unused (control)", "infonce", "InfoNCE that pays for 4 support views and does not look at them",
            support, control="other"),
        row("fnc, elimination", fnc(10, 0.7, False), told, support,
            others=(fnc(10, 0.9, False), fnc(3, 0.7, False))),
        row("fnc, attraction", fnc(10, 0.7, True), told, support,
            others=(fnc(10, 0.9, True), fnc(3, 0.7, True))),
        row("contrastive crop", "infonce", "2202.03278: alpha 0.6, threshold 0.1, a look every fifth of the epochs",
            (("crop", followed),)),
        row("fixed crop (control)", "infonce", "2202.03278's code: centres in the middle, without looking",
            (("crop", "fixed_crop(alpha=0.6)"),), control="other"),
    )  # fmt: skip


def _new(run: Run) -> tuple[Condition, ...]:
    """What no paper has: their pages say so in the first line."""
    far = "easiest(5) & ~above(0)"
    e = run.epochs
    return (
        row("external difficulty", _refilled(run, 'hardest(0.1, by=external("descriptors"))'),
            "new: what hand-made descriptors find hardest, dropped"),
        row("own views sorted", "chain(own_views(close=1, far=1), infonce)",
            "new: of an image's 2 support views the close one is a positive, the far one a negative",
            (("support", 2),)),
        row("easy to hard", f"chain(keep(window(ramp(0, 95, {e}), ramp(5, 100, {e}))), infonce)",
            "new: a window of 5 % that moves to the hard end"),
        row("hard to easy", f"chain(keep(window(ramp(95, 0, {e}), ramp(100, 5, {e}))), infonce)",
            "new: the same window the other way"),
        row("anti-correlated dropped", f"chain(drop({far}), infonce)", "new: the far end where cosines are negative"),
        row("anti-correlated mirrored", f"chain(mirror({far}), infonce)", "new: the same, each as its mirror image"),
        row("anti-correlated attracted", f"chain(attract({far}), infonce)", "new: the same, as positives"),
        row("near-duplicates dropped", "chain(drop(near_duplicate), infonce)",
            "new: groups found once by hash and descriptor"),
        row("auto", "chain(auto(), infonce)", "new: how much of the hard end is cancelled follows from the scores",
            others=("chain(auto(certainty=0.2), infonce)", "chain(auto(certainty=0.1), infonce)")),
    )  # fmt: skip


def _memories(run: Run) -> tuple[Condition, ...]:
    kept = (("memory", "lasting(hardest(5))"),)
    chance = (("memory", "lasting(hardest(5, by=random))"),)
    return (
        row("lasting memory", "infonce", "new: what is often among the hardest 5 % stays longer", kept),
        row("lasting at random (control)", "infonce", "the same memory, which keeps random entries", chance,
            control="other"),
    )  # fmt: skip


def _labelled(run: Run) -> tuple[Condition, ...]:
    return (
        row(ORACLE, _refilled(run, "same_class"), "2010.06682, Table 1: no negative is of the query's class",
            labels=True),
        row("supcon", "chain(attract(same_class), supcon)", "2004.11362: all of the class are positives", labels=True),
    )  # fmt: skip


def _hosts(run: Run) -> tuple[Condition, ...]:
    start = max(1, run.epochs // 4)
    npid: Changes = (("host", "npid"),)
    cmc: Changes = (("host", "cmc"),)
    slow = [(("lr", run.lr / 2), ("temperature", temperature)) for temperature in (0.2, 0.5)]
    told = f"; tried with half the rate and temperatures {' and '.join(str(each[1][1]) for each in slow)} too"
    return (
        row("npid", "infonce", f"1805.01978: whole bank, momentum 0.5, temperature 0.1{told}", npid,
            tried=[npid + each for each in slow], table=HOSTS),
        row("invp in npid", f"invp(start={start})",
            "2010.11694: k 4, 3 steps, 50 hardest, weight 0.6; from a quarter of the epochs on (30 of 800 there)",
            npid, tried=[npid + each for each in slow], table=HOSTS, against="npid"),
        row("cmc", "infonce", f"1906.05849: Lab, two banks, momentum 0.5{told}", cmc,
            tried=[cmc + each for each in slow], table=HOSTS),
        row("moco, views rotated too", "infonce", "2008.05659's comparison: rotation as one more augmentation",
            (("rotation", True),), table=HOSTS, control="other"),
        row("looc", "infonce", "2008.05659: spaces for rotation and colour",
            (("host", "looc"), ("rotation", True), ("spaces", "rotation,colour")), table=HOSTS),
    )  # fmt: skip


STUDY = Study(
    name="methods",
    title="Which treatment of negatives and positives helps, at equal compute?",
    setting=(
        "The same images, order and seeds, and as many epochs as equal compute leaves. Differences are paired by seed "
        "and corrected by Holm's method."
    ),
    conditions=conditions,
    tables=(
        Table(
            METHODS,
            "Methods on one host",
            "Each against the host's plain InfoNCE. Rows that see labels stand apart: they show what a method could "
            "reach, and are a family of tests of their own.",
        ),
        Table(
            HOSTS,
            "Hosts of their own",
            "Hosts that bring their own memory, encoders or spaces, against MoCo with plain InfoNCE; InvP against the "
            "host it needs. Their weights and views are not those of MoCo: only images, order and seed are shared.",
        ),
    ),
    presets={"demo": DEMO, "small": {}},
    seeds=5,
)
