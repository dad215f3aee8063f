"""What no paper asks: cause or company, the order of difficulty, what a memory keeps, positives in time."""

from __future__ import annotations

from onca.study.plan import Changes, Claim, Condition
from onca.study.studies.question import case, claim, question
from onca.train import Run

# Cause, not company.


def cause(preset: str, run: Run) -> tuple[Condition, ...]:
    """Few negatives of one band of cosines, by kinship or at random; then kin alone, their harder or easier half.

    Those of the query's class go first, since they are no kin but false negatives.
    """
    few = max(1, round(0.004 * run.queue))

    def kept(*rules: str) -> str:
        return f"chain(drop(same_class), {', '.join(f'keep({rule})' for rule in rules)}, infonce)"

    band, kin = "window(94, 95)", "above(0.5, by=label_distance)"
    return (
        case(CHANCE, kept(band, f"sample({few})"), labels=True, control="other"),
        case(NEAREST, kept(band, f"nearest({few}, by=label_distance)"), (), CHANCE, labels=True),
        case(FARTHEST, kept(band, f"farthest({few}, by=label_distance)"), (), CHANCE, labels=True),
        case(EASIER, kept(kin, "easiest(50)"), labels=True),
        case(HARDER, kept(kin, "hardest(50)"), (), EASIER, labels=True),
    )


CHANCE, NEAREST, FARTHEST = "equally hard, at random (control)", "equally hard, nearest kin", "equally hard, no kin"
HARDER, EASIER = "kin alone, harder half", "kin alone, easier half"


def cause_claims(preset: str, host: str) -> tuple[Claim, ...]:
    return (
        claim("kinship", "Of equally hard negatives, kin are the better ones", NEAREST, FARTHEST, "helps"),
        claim("near", "They are better than equally hard ones at random", NEAREST, CHANCE, "helps"),
        claim("difficulty", "Of kin alone, the harder ones are the better ones", HARDER, EASIER, "helps"),
    )


# Curricula, memories, positives in time.


def curricula(preset: str, run: Run) -> tuple[Condition, ...]:
    fixed, e = "hardest 5 % throughout", run.epochs
    return (
        case(fixed, "chain(keep(hardest(5)), infonce)"),
        case("random 5 % (control)", f"chain(keep(sample({round(0.05 * run.queue)})), infonce)", (), fixed,
              control="other"),
        case("easy to hard", f"chain(keep(window(ramp(0, 95, {e}), ramp(5, 100, {e}))), infonce)", (), fixed),
        case("hard to easy", f"chain(keep(window(ramp(95, 0, {e}), ramp(100, 5, {e}))), infonce)", (), fixed),
    )  # fmt: skip


def curricula_claims(preset: str, host: str) -> tuple[Claim, ...]:
    fixed = "hardest 5 % throughout"
    return (
        claim("easy first", "Easy first, hard later helps", "easy to hard", fixed, "helps"),
        claim("hard first", "Hard first, easy later helps", "hard to easy", fixed, "helps"),
        claim("order", "Easy first is better than hard first", "easy to hard", "hard to easy", "helps"),
        claim("choice", "The hardest 5 % are better than a random 5 %", fixed, "random 5 % (control)", "helps"),
    )


def memory(preset: str, run: Run) -> tuple[Condition, ...]:
    chance = "lasting at random (control)"
    return (
        case("queue"),
        case(chance, "infonce", (("memory", "lasting(hardest(5, by=random))"),), "queue", control="other"),
        case("lasting", "infonce", (("memory", "lasting(hardest(5))"),), chance),
    )


def memory_claims(preset: str, host: str) -> tuple[Claim, ...]:
    chance = "lasting at random (control)"
    return (
        claim("hard", "Keeping what is hard helps beside keeping at random", "lasting", chance, "helps"),
        claim("queue", "Keeping what is hard helps beside a queue", "lasting", "queue", "helps"),
        claim("age", "Keeping at random is worse than a queue: older keys cost", chance, "queue", "worse"),
    )


GAPS = (1, 2, 4)


def frames(preset: str, run: Run) -> tuple[Condition, ...]:
    moving: Changes = (("data", run.data if "frames" in run.data else "world(frames=8)"),)
    base = "same frame"
    others = (
        case(f"at most {gap} frame{'s' if gap > 1 else ''} away", "infonce", (*moving, ("gap", gap)), base)
        for gap in GAPS
    )
    return (case(base, "infonce", moving), *others)


def frames_claims(preset: str, host: str) -> tuple[Claim, ...]:
    near, far = "at most 1 frame away", f"at most {GAPS[-1]} frames away"
    return (
        claim("near", "A neighbouring frame as the second view helps", near, "same frame", "helps"),
        claim("far", f"A frame at most {GAPS[-1]} away helps", far, "same frame", "helps"),
    )


QUESTIONS = (
    question(
        "cause",
        "Is it a negative's kinship that matters, or its difficulty?",
        "From one narrow band of cosines as many of the closest kin, by the tree of labels, as of the farthest, or at "
        "random: kinship varies, difficulty stands still. Then kin alone, their harder or easier half: the reverse.",
        conditions=cause,
        claims=cause_claims,
    ),
    question(
        "curricula",
        "Easy negatives first, or hard ones?",
        "A window of 5 % that moves over the percentiles during training, against the hardest 5 % throughout.",
        conditions=curricula,
        claims=curricula_claims,
    ),
    question(
        "memory",
        "Does a memory gain by keeping what is hard for longer?",
        "Against a queue, and against the same memory keeping random entries as long (the null control).",
        conditions=memory,
        claims=memory_claims,
    ),
    question(
        "frames",
        "Are neighbouring frames good positives?",
        "Sequences of moving animals; the second view is of a frame at most so far away, with the same augmentation.",
        conditions=frames,
        claims=frames_claims,
    ),
)
