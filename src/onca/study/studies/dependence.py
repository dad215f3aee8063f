"""What the gain of a method depends on: the number of classes, the crops, the precision of what is detected."""

from __future__ import annotations

from functools import lru_cache

from onca.data import load
from onca.data.sources import read_world
from onca.study.plan import Changes, Claim, Condition
from onca.study.studies.question import case, claim, question
from onca.train import Run

# The number of classes.

COUNTS = (10, 20, 50, 100)
WORLDS = {8: "world(families=2, genera=2, species=2)", 16: "world(genera=2, species=2)", 32: "world(species=2)",
          64: "world"}  # fmt: skip


def classes(preset: str, run: Run) -> tuple[Condition, ...]:
    made = []
    sources = _by_classes(run)
    for count, data in sources.items():
        base = f"{count} classes"
        oracle = f"chain(drop(same_class{'' if run.host == 'simclr' else ', refill=True'}), infonce)"
        made += [
            case(base, "infonce", data),
            case(f"debiased, {base}", f"debiased({1 / count:g})", data, base, series="debiased", at=count),
            case(f"oracle, {base}", oracle, data, base, labels=True, series="oracle", at=count),
        ]
    return tuple(made)


def _by_classes(run: Run) -> dict[int, Changes]:
    """The run's data with few to many classes. Raises ValueError for a source that has too few to choose from."""
    if run.data.split("(")[0] == "world":
        return {count: (("data", world),) for count, world in WORLDS.items()}
    there = class_count(run.data)
    found: dict[int, Changes] = {count: (("classes", count),) for count in COUNTS if count <= there}
    if len(found) < 2:
        raise ValueError(f"--ask classes compares {COUNTS[0]}, {COUNTS[1]} or more classes; {run.data} has {there}")
    return found


def classes_claims(preset: str, host: str) -> tuple[Claim, ...]:
    ends = [tuple(f"{count} classes" for count in (min(of), max(of))) for of in (COUNTS, WORLDS)]
    return tuple(
        each
        for few, many in ends  # those of which the study has no condition are left out
        for name, loss in (("debiased", "The debiased loss"), ("oracle", "The oracle"))
        for each in (
            claim(f"{name} {few}", f"{loss} helps with {few}", f"{name}, {few}", few, "helps"),
            claim(f"{name} {many}", f"{loss} helps with {many}", f"{name}, {many}", many, "helps"),
            claim(f"{name} {few} {many}", f"{loss} helps more with {few} than with {many}", f"{name}, {few}", few,
                   "helps", minus=(f"{name}, {many}", many)),
        )
    )  # fmt: skip


# The crop's lower bound.

LOWS = (0.08, 0.2, 0.5)


def crop(preset: str, run: Run) -> tuple[Condition, ...]:
    made = []
    for low in LOWS:
        bound: Changes = (("crop_low", low),)
        base, more = f"crops from {low:g}", (*bound, ("support", 4))
        made += [
            case(base, "infonce", bound),
            case(f"elimination, {base}", "fnc(k=10, threshold=0.7, attraction=False)", more, base,
                  series="elimination", at=low),
            case(f"attraction, {base}", "fnc(k=10, threshold=0.7, attraction=True)", more, base,
                  series="attraction", at=low),
        ]  # fmt: skip
    return tuple(made)


def crop_claims(preset: str, host: str) -> tuple[Claim, ...]:
    small, large = (f"crops from {LOWS[end]:g}" for end in (0, -1))
    return tuple(
        each
        for name in ("elimination", "attraction")
        for each in (
            claim(f"{name} large", f"FNC's {name} helps with {large} of the area", f"{name}, {large}", large, "helps"),
            claim(f"{name} trend", f"FNC's {name} helps more with {large} than with {small}", f"{name}, {large}",
                   large, "helps", minus=(f"{name}, {small}", small)),
        )
    )  # fmt: skip


# Detected sets of known precision.

PRECISIONS = (25, 50, 75, 100)  # percent of a detected set that are of the query's class
DETECTED = 0.5  # size of a detected set, as a share of the query's class in the memory


def precision(preset: str, run: Run) -> tuple[Condition, ...]:
    """Sets of one size, part of the query's class and part not, drawn anew at every step.

    `same_class & sample(n)` of N entries holds on average n / N of the query's class, so its expected number follows
    from n; classes are taken to be equally frequent.
    """
    made = [case("baseline")]
    for percent in PRECISIONS:
        share = percent / 100
        true = round(DETECTED * share * run.queue)
        false = round(DETECTED * (1 - share) * run.queue / (class_count(run.data) - 1))
        wrong = f" | ~same_class & sample({false})" if false else ""
        found = f"same_class & sample({true}){wrong}"
        made += [
            case(f"elimination at {percent} %", f"chain(drop({found}), infonce)", (), "baseline", labels=True,
                  series="elimination", at=percent),
            case(f"attraction at {percent} %", f"chain(attract({found}), supcon)", (), "baseline", labels=True,
                  series="attraction", at=percent),
        ]  # fmt: skip
    return tuple(made)


KNOWN = {"cifar10": 10, "cifar100": 100, "stl10": 10, "imagenet": 1_000}  # classes of what need not be here yet


@lru_cache
def class_count(data: str) -> int:
    """How many classes a source of images has."""
    if data.split("(")[0] == "world":
        world = read_world(data)
        return world.families * world.genera * world.species
    return KNOWN.get(data) or len(load(data, images=1_000).train.names)


def precision_claims(preset: str, host: str) -> tuple[Claim, ...]:
    low, high = PRECISIONS[0], PRECISIONS[-1]
    return (
        *(
            claim(f"{name} {percent}", f"{name.capitalize()} helps at a precision of {percent} %",
                   f"{name} at {percent} %", "baseline", "helps")
            for name in ("elimination", "attraction") for percent in (low, high)
        ),
        claim("more sensitive", f"From {high} to {low} % attraction loses more than elimination",
               f"attraction at {high} %", f"attraction at {low} %", "helps",
               minus=(f"elimination at {high} %", f"elimination at {low} %")),
    )  # fmt: skip


QUESTIONS = (
    question(
        "classes",
        "Does the gain of debiased, and of the oracle, fall with the number of classes?",
        "As many images of fewer or more classes; each gain is to the plain baseline on the same classes, and tau_plus "
        "is the share of a class. Accuracies on different numbers of classes do not compare, gains only roughly.",
        "number of classes",
        conditions=classes,
        claims=classes_claims,
    ),
    question(
        "crop",
        "Does false negative cancellation gain more where crops are larger?",
        "The lower bound of the crop's share of the image; each gain is to the plain baseline with the same crops, at "
        "equal compute (four support views halve the epochs).",
        "smallest share of the area",
        conditions=crop,
        claims=crop_claims,
    ),
    question(
        "precision",
        "How precise must detection be for elimination, and for attraction?",
        "Detected sets of one size, half as many as there are of the query's class in the memory, drawn with "
        "labels so that their precision is known (on average, classes being equally frequent).",
        "precision of the detected set, %",
        conditions=precision,
        claims=precision_claims,
    ),
)
