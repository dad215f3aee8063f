"""Questions of the study of methods that are run on request: each a few conditions, a rule and an answer."""

from __future__ import annotations

from onca.study.plan import Changes, Claim, Condition
from onca.study.rotation import rotation_of
from onca.study.studies import dependence, order
from onca.study.studies.question import DEMO, case, claim, question
from onca.train import Run

# Accuracy against time.

LENGTHS = (0.5, 1.0, 2.0, 4.0)  # of the preset's epochs
WINDOWS = {"all": "infonce", "hardest 5 %": "chain(keep(hardest(5)), infonce)"}


def _length(epochs: int) -> str:
    return f"{epochs} epoch{'s' if epochs > 1 else ''}"


def time(preset: str, run: Run) -> tuple[Condition, ...]:
    made = []
    for epochs in dict.fromkeys(max(1, round(length * run.epochs)) for length in LENGTHS):
        for name, method in WINDOWS.items():
            against = "" if name == "all" else f"all, {_length(epochs)}"
            made.append(
                case(f"{name}, {_length(epochs)}", method, (("epochs", epochs),), against, series=name, at=epochs)
            )
    return tuple(made)


def time_claims(preset: str, host: str) -> tuple[Claim, ...]:
    """At the preset's own lengths: with --epochs other lengths are run, and these are not tested there."""
    epochs = {"demo": DEMO["epochs"], "small": 100}[preset]
    told = [_length(max(1, round(length * epochs))) for length in (LENGTHS[0], LENGTHS[-1])]
    short, long = ((f"hardest 5 %, {each}", f"all, {each}") for each in told)
    return (
        claim("short", f"The hardest 5 % suffice for {told[0]}", *short, "suffices"),
        claim("long", f"The hardest 5 % suffice for {told[1]}", *long, "suffices"),
        claim("trend", "The longer the training, the better the hardest 5 % do beside all", *long, "helps", short),
    )


# LooC: what an invariance costs.


def looc(preset: str, run: Run) -> tuple[Condition, ...]:
    rotated: Changes = (("rotation", True),)
    return (
        case("moco"),
        case("moco, views rotated too", "infonce", rotated, "moco"),
        case("looc, views rotated too", "infonce", (("host", "looc"), *rotated, ("spaces", "rotation")), "moco"),
    )


def looc_claims(preset: str, host: str) -> tuple[Claim, ...]:
    moco, rotated, kept = "moco", "moco, views rotated too", "looc, views rotated too"
    probe = "rotation_top1"
    return (
        Claim("information lost", "Rotated views cost MoCo information on rotation", rotated, moco, None, "worse",
              "ImageNet-100: rotation accuracy 43.3 against 61.1", metric=probe),
        Claim("accuracy lost", "Rotated views cost MoCo accuracy", rotated, moco, None, "worse",
              "79.4 against 81.0"),
        Claim("information kept", "LooC keeps information on rotation", kept, moco, None, "does not hurt",
              "65.2 against 61.1", metric=probe),
        Claim("accuracy kept", "LooC keeps accuracy", kept, moco, None, "does not hurt", "80.2 against 81.0"),
        Claim("more information", "LooC tells rotations better than MoCo with rotated views", kept, rotated, None,
              "helps", "65.2 against 43.3", metric=probe),
    )  # fmt: skip


ASKED = (
    *dependence.QUESTIONS,
    question(
        "time",
        "Do the hardest negatives pay early or late?",
        "Runs of several lengths, each with its own schedule of the learning rate to the end.",
        "epochs",
        conditions=time,
        claims=time_claims,
    ),
    question(
        "looc",
        "What does an invariance cost, and does LooC keep it?",
        "Rotation is added to the views of MoCo and of LooC, at equal compute. Rotation is what a linear probe on "
        "frozen features tells of four quarter turns of test images (chance is 25 %).",
        conditions=looc,
        claims=looc_claims,
        seeds=3,
        arxiv="2008.05659",
        measure=rotation_of,
    ),
    *order.QUESTIONS,
)
