"""Questions of the study of methods that are run on request: each a few conditions, a rule and an answer."""

from __future__ import annotations

from onca.study.plan import Changes, Claim, Condition
from onca.study.rotation import rotation_of
from onca.study.studies import dependence, order
from onca.study.studies.question import case, claim, question
from onca.train import Run

# Accuracy against time.

LENGTHS = {0.5: "half as long", 1.0: "as long", 2.0: "twice as long", 4.0: "four times as long"}  # as the preset's
WINDOWS = {"all": "infonce", "hardest 5 %": "chain(keep(hardest(5)), infonce)"}


def time(preset: str, run: Run) -> tuple[Condition, ...]:
    lengths: dict[int, str] = {}  # of lengths that come to as many epochs, the first
    for share, words in LENGTHS.items():
        lengths.setdefault(max(1, round(share * run.epochs)), words)
    return tuple(
        case(f"{name}, {words}", method, (("epochs", epochs),), "" if name == "all" else f"all, {words}",
             series=name, at=epochs)
        for epochs, words in lengths.items()
        for name, method in WINDOWS.items()
    )  # fmt: skip


def time_claims(preset: str, host: str) -> tuple[Claim, ...]:
    short, long = ((f"hardest 5 %, {words}", f"all, {words}") for words in (LENGTHS[0.5], LENGTHS[4.0]))
    return (
        claim("short", "The hardest 5 % suffice in runs half as long", *short, "suffices"),
        claim("long", "The hardest 5 % suffice in runs four times as long", *long, "suffices"),
        claim("trend", "The longer the run, the better the hardest 5 % do beside all", *long, "helps", short),
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
