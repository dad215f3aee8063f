"""The study of methods: its rows and settings, equal compute, what is chosen on validation, words after Holm."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up import base, compared

import onca
from onca.data import load
from onca.encoders import make
from onca.evaluate.rotation import rotation_top1
from onca.report import write_study
from onca.report.comparison import findings
from onca.study import QUESTIONS, Grid, find, gather, grid, run_study, share, unfinished, units
from onca.study.comparison import BETTER, NOT_SHOWN, WORSE, compare
from onca.study.compute import at_equal_compute, passes
from onca.study.grid import TRIAL_SEED
from onca.study.plan import Condition
from onca.study.studies.dependence import PRECISIONS, class_count
from onca.study.studies.methods import BASELINE, HOSTS, METHODS, NULL, ORACLE
from onca.train import Run, result_of

QUICK = {"encoder": "small(4)", "batch": 64, "queue": 128, "size": 12, "images": 256, "epochs": 4}
ASKED = [study.name.removeprefix("methods-") for study in QUESTIONS["methods"]]


# Equal compute.


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 4),  # a query and its backward pass, a key
        ({"support": 4}, 8),
        ({"symmetric": True}, 8),
        ({"host": "simclr"}, 6),
        ({"host": "simclr", "support": 2}, 8),
        ({"host": "npid"}, 3),
        ({"host": "cmc"}, 6),
        ({"host": "looc", "spaces": "rotation"}, 5),  # keys of both spaces
        ({"host": "looc", "spaces": "rotation,colour"}, 6),
        ({"rotation": True, "memory": "queue"}, 4),
    ],
)
def test_units_count_the_passes_of_a_step(changes: dict[str, object], expected: int) -> None:
    assert units(replace(Run(), **changes)) == expected


def test_looking_for_boxes_counts() -> None:
    """Before epochs 1 and 3 of 4 the encoder looks at every image once more."""
    run = replace(Run(epochs=4), crop="contrastive_crop(warmup=1, interval=2)")
    assert passes(run) == 4 * 4 + 2


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [({"support": 4}, 50), ({"support": 1}, 80), ({"host": "simclr"}, 67), ({"host": "npid"}, 133), ({}, 100)],
)
def test_more_views_leave_fewer_epochs(changes: dict[str, object], epochs: int) -> None:
    plain = Run(epochs=100)
    made = at_equal_compute(replace(plain, **changes), plain)
    assert made.epochs == epochs
    assert share(made, plain) == pytest.approx(1, abs=0.01)


def test_one_epoch_is_the_least() -> None:
    assert at_equal_compute(Run(epochs=1, support=30), Run(epochs=1)).epochs == 1


@pytest.mark.parametrize("preset", ["demo", "small"])
def test_every_row_gets_the_baselines_compute(preset: str) -> None:
    made = _rows_that_can_be_made(preset)
    for condition, run in made:
        got = share(run, base("methods", preset))
        assert abs(got - 1) <= (0.13 if preset == "demo" else 0.03), (condition.name, got)


def _rows_that_can_be_made(preset: str) -> list[tuple[Condition, Run]]:
    found = grid("methods", preset, seeds=1)
    return [(cell.condition, cell.run) for cell in (*found.cells, *found.trials)]


# The rows.


@pytest.mark.parametrize("ask", [None, *ASKED])
@pytest.mark.parametrize("preset", ["demo", "small"])
def test_conditions_have_partners_and_can_be_read(preset: str, ask: str | None) -> None:
    study = find("methods", ask)
    conditions = study.conditions(preset, base("methods", preset, ask=ask))
    names = [condition.name for condition in conditions]
    assert len(set(names)) == len(names)
    for condition in conditions:
        assert condition.against in ("", *names) and condition.against != condition.name
        assert set(condition.figures) <= {table.key for table in study.tables}
        for method in (condition.method, *(choice.method for choice in condition.choices)):
            assert str(onca.read(method)).replace(" ", "") == method.replace(" ", "")
            labels = any(word in method for word in ("same_class", "label_distance"))
            assert condition.needs_labels == labels, condition.name
        assert len(condition.choices) <= 3
        assert not condition.choices or condition.choices[0].method == condition.method
    ours = [{claim.a, claim.b, *(claim.minus or ())} <= set(names) for claim in study.claims(preset, "moco")]
    assert all(ours) if ask != "classes" else sum(ours) == 6, "classes also claims for sources with other numbers"


def test_the_comparison_has_its_controls() -> None:
    rows = {c.name: c for c in find("methods").conditions("demo", base("methods"))}
    assert rows[BASELINE].against == "" and rows[BASELINE].figures == (METHODS, HOSTS)
    assert rows[NULL].control == "null" and rows[NULL].method == "chain(drop(sample(1)), infonce)"
    assert rows[ORACLE].needs_labels and rows["supcon"].needs_labels
    assert {name for name, c in rows.items() if HOSTS in c.figures} >= {"npid", "cmc", "looc", "invp in npid"}
    assert rows["invp in npid"].against == "npid"
    lasting, chance = rows["lasting memory"], rows["lasting at random (control)"]
    assert "by=random" in dict(chance.changes)["memory"] and "by=random" not in dict(lasting.changes)["memory"]
    assert all(c.source for c in rows.values())  # every row says where its setting comes from


def test_a_batch_has_no_memory_and_no_other_hosts() -> None:
    names = {c.name: c for c in find("methods").conditions("demo", base("methods", host="simclr"))}
    assert not {"lasting memory", "npid", "looc"} & set(names)
    assert not any("refill" in c.method for c in names.values())


def test_mixing_is_scaled_to_the_queue() -> None:
    """1,024 points of 65,536 keys are 64 of 4,096; with the paper's own queue they are the paper's."""

    def mixed(queue: int) -> str:
        rows = find("methods").conditions("demo", replace(base("methods"), queue=queue))
        return next(c.method for c in rows if c.name == "mochi")

    assert mixed(4096) == "chain(mochi(n=64, s=64, s2=8), infonce)"
    assert mixed(65_536) == "chain(mochi(n=1024, s=1024, s2=128), infonce)"


def test_detected_sets_have_the_precision_they_are_named_by() -> None:
    """Expected numbers of N entries of C equally frequent classes: sample(n) & same_class holds n / C."""
    run = base("methods", ask="precision")
    classes, half = class_count(run.data), run.queue / class_count(run.data) / 2
    for condition in find("methods", "precision").conditions("demo", run):
        if condition.at is None:
            continue
        numbers = [int(part.split(")")[0]) for part in condition.method.split("sample(")[1:]]
        true, false = numbers[0] / classes, (numbers[1] if len(numbers) > 1 else 0) * (classes - 1) / classes
        assert 100 * true / (true + false) == pytest.approx(condition.at, abs=1)
        assert true + false == pytest.approx(half, rel=0.03)
    assert PRECISIONS[-1] == 100


def test_runs_of_other_lengths_do_not_share_a_folder() -> None:
    made = grid("methods", seeds=1, ask="time")
    assert len({cell.run.folder for cell in made.cells}) == len(made.cells)
    base_epochs = made.base.epochs
    assert {cell.run.epochs for cell in made.cells} == {base_epochs // 2, base_epochs, 2 * base_epochs, 4 * base_epochs}


def test_questions_are_studies_of_their_own() -> None:
    made = grid("methods", ask="memory", seeds=2)
    assert made.folder.name.startswith("methods-memory-demo-") and find("methods-memory") is made.study
    with pytest.raises(ValueError, match="no question 'memroy'"):
        grid("methods", ask="memroy")
    with pytest.raises(ValueError, match="cai2020 has no questions"):
        grid("cai2020", ask="memory")
    assert {cell.run.classes for cell in grid("methods", "small", ask="classes").cells} == {10, 20, 50, 100}
    with pytest.raises(ValueError, match="compares 10, 20 or more classes; cifar10 has 10"):
        grid("methods", "small", ask="classes", data="cifar10")
    with pytest.raises(ValueError, match="no preset 'paper' of the study methods"):
        grid("methods", "paper")
    with pytest.raises(ValueError, match="1000 is the seed"):
        grid("methods", seeds=(0, TRIAL_SEED))


# Settings are chosen on the validation part, and a small study from end to end.


def little(source: str, runs: Path) -> Grid:
    """Baseline, null control and a row with three settings, as the study makes them."""
    made = grid("methods", data=source, seeds=2, runs=str(runs), **QUICK)
    names = (BASELINE, NULL, "debiased")
    cells, trials = (tuple(c for c in each if c.condition.name in names) for each in (made.cells, made.trials))
    return replace(made, cells=cells, trials=trials)


@pytest.fixture(scope="module")
def done(source: str, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    made = little(source, tmp_path_factory.mktemp("runs"))
    assert len(unfinished(made)) == 3 + 3 * 2
    outcome = run_study(made, workers=1)
    assert not outcome.failures, outcome.failures
    return made


def test_a_little_study_from_end_to_end(done: Grid) -> None:
    from onca.report import StudyResult, read_study

    outcome = gather(done)
    assert unfinished(done) == [] and len(outcome.rows) == 6
    result = StudyResult(**vars(outcome))
    write_study(done.folder, result)
    assert read_study(done.folder) == result
    lines = {line["condition"]: line for line in csv.DictReader((done.folder / "table.csv").open())}
    assert list(lines) == [BASELINE, NULL, "debiased"]
    null = [float(row["linear_top1"]) for row in outcome.rows if row["condition"] == NULL]
    plain = [float(row["linear_top1"]) for row in outcome.rows if row["condition"] == BASELINE]
    assert float(lines[NULL]["difference"]) == pytest.approx(sum(null) / 2 - sum(plain) / 2)
    assert lines[NULL]["against"] == BASELINE and lines[BASELINE]["against"] == lines[BASELINE]["says"] == ""
    assert all(float(line["compute"]) == 1 for line in lines.values())
    assert "Settings chosen on the validation part" in (done.folder / "report.html").read_text()
    assert len(result.spoken()) == 2 and "debiased" in result.spoken()[1]


def test_the_best_on_validation_is_what_is_run(done: Grid) -> None:
    """Of its three settings the highest on validation, whatever the test part says; the seed is none of the study's."""
    outcome = gather(done)
    assert {(row["split"], row["seed"]) for row in outcome.trials} == {("validation", TRIAL_SEED)}
    assert {(row["split"], row["seed"]) for row in outcome.rows} == {("test", 0), ("test", 1)}
    best = max(outcome.trials, key=lambda row: row["linear_top1"])  # the first of equals, as max takes it
    methods = {row["method"] for row in outcome.rows if row["condition"] == "debiased"}
    assert methods == {best["method"]}
    assert all(c.choices == () for c in outcome.conditions)


def test_a_planted_result_changes_the_choice(done: Grid, tmp_path: Path) -> None:
    """Were the test part looked at, or the first setting always taken, this would not move."""
    outcome = gather(done)
    taken = next(row["method"] for row in outcome.rows if row["condition"] == "debiased")
    other = next(cell for cell in done.trials if cell.run.method != taken)
    place = other.run.folder / "result.json"
    before = place.read_text()
    try:
        place.write_text(json.dumps({**json.loads(before), "linear_top1": 99.0}))
        methods = {cell.run.method for cell in done.settled().cells if cell.condition.name == "debiased"}
        assert methods == {other.run.method}
        assert [cell.condition.name for cell in unfinished(done)] == ["debiased"] * 2
    finally:
        place.write_text(before)


def test_a_choice_may_change_other_fields_too() -> None:
    trials = [cell for cell in grid("methods", seeds=1).trials if cell.condition.name == "fnc, attraction"]
    assert len({cell.run.method for cell in trials}) == 3
    assert {(cell.run.support, cell.run.epochs, cell.compute) for cell in trials} == {(4, 3, 1.0)}


# Words.


def test_words_follow_holms_correction() -> None:
    """One row far off among many alike is shown; the same interval beside 0 is not, which alone would be."""
    study = compared({"debiased": 4.0, "ring": -4.0, ORACLE: 3.0})
    found = {each.condition.name: each for each in study.compared()[METHODS]}
    assert found["debiased"].word == BETTER and found["ring"].word == WORSE and found[ORACLE].word == BETTER
    others = [each for name, each in found.items() if name not in ("debiased", "ring", ORACLE)]
    assert all(each.word == NOT_SHOWN for each in others)
    assert any(each.p is not None and each.p < 0.2 and each.adjusted == 1.0 for each in others)  # the correction acts
    assert found["debiased"].tests == len([e for e in found.values() if not e.condition.needs_labels])
    assert found[ORACLE].tests == found["supcon"].tests == 2  # what sees labels is a family of its own


def test_without_the_correction_chance_would_be_found() -> None:
    """The planted fault: of many rows that differ by chance alone, some have an interval beside 0, and no word."""
    alone = words = 0
    for start in range(6):
        study = compared({f"none of them {start}": 1.0}, noise=0.3 + start)
        for each in study.compared()[METHODS]:
            alone += each.p is not None and each.p < 0.05
            words += each.word != NOT_SHOWN
    assert alone >= 3 and words == 0


def test_results_that_are_alike_say_that_nothing_was_changed() -> None:
    study = compared({}, noise=0.0)
    found = compare(study.conditions, study.rows, METHODS)
    assert {(each.word, each.why) for each in found} == {
        (NOT_SHOWN, "the same result with every seed: it changed nothing here")
    }


def test_one_seed_and_no_run_say_so() -> None:
    study = compared({}, seeds=1)
    assert {(each.word, each.why) for each in study.compared()[METHODS]} == {(NOT_SHOWN, "one seed, no test")}
    without = tuple(row for row in study.rows if row["condition"] != "ring")
    ring = next(e for e in compare(study.conditions, without, METHODS) if e.condition.name == "ring")
    assert (ring.word, ring.why) == ("not run", "no finished run of ring")


def test_answers_name_what_is_shown_and_nothing_else() -> None:
    better, worse, chance, labels = findings(compared({"debiased": 4.0, "own views sorted": -4.0}).compared())
    assert better.headline == "debiased" and worse.headline == "own views sorted"
    assert chance.headline == "No difference shown" and labels.headline == "No difference shown"
    none = findings(compared({}).compared())
    assert [answer.headline for answer in none[:2]] == ["No difference shown"] * 2
    assert "Holm" in none[0].sentences[0]


def test_a_null_control_that_differs_is_an_alarm() -> None:
    """The planted fault: in a sound comparison chance alone has no word."""
    answers = findings(compared({NULL: 5.0}).compared())
    chance = next(answer for answer in answers if answer.question == "What does chance alone do?")
    assert chance.headline.startswith("Too much") and "not to be trusted" in chance.sentences[1]
    assert NULL not in answers[0].headline  # and it is no method


@pytest.mark.parametrize("ask", [None, *ASKED])
def test_every_question_has_a_page(tmp_path: Path, ask: str | None) -> None:
    text = write_study(tmp_path, compared({}, ask=ask)).read_text(encoding="utf-8")
    study = find("methods", ask)
    assert study.title in text.replace("&#x27;", "'")
    told = json.loads((tmp_path / "study.json").read_text())
    names = {condition.name for condition in study.conditions("demo", base("methods", ask=ask))}
    claims = [claim for claim in study.claims("demo", "moco") if {claim.a, claim.b} <= names]
    assert {v["key"] for v in told["verdicts"]} == {claim.key for claim in claims}
    drawn = {place.stem for place in (tmp_path / "figures").glob("*.svg")}
    for table in study.tables:
        assert table.key in drawn and (not table.axis or f"{table.key}-axis" in drawn)


# What a question measures besides.


def test_what_is_measured_besides_stands_in_its_table_alone(tmp_path: Path) -> None:
    pages = {ask: write_study(tmp_path / str(ask), compared({}, ask=ask)).read_text() for ask in (None, "looc")}
    assert [">Rotation</th>" in text for text in pages.values()] == [False, True]


def test_the_rotation_probe_tells_turned_images_apart() -> None:
    """An encoder that sees where the light is tells all turns; one that sees the mean colour tells none."""
    splits = load("world(families=1, genera=1, species=2)", size=8, images=256)
    gradient = torch.linspace(0, 255, 8).to(torch.uint8)
    lit = {
        name: replace(images, pixels=gradient[:, None].expand(len(images), 3, 8, 8).clone(), undecoded=None)
        for name, images in (("train", splits.train), ("test", splits.test))
    }
    encoder = make("small(4)", "linear", 8)
    told = []
    for pooled in (False, True):
        encoder.features = (lambda x: x.mean((2, 3))) if pooled else (lambda x: x.flatten(1))
        told.append(rotation_top1(encoder, lit["train"], lit["test"], [0.5] * 3, [0.25] * 3))
    assert told[0] == 100 and told[1] < 35


def test_the_probes_turns_do_not_follow_the_classes(done: Grid) -> None:
    from onca.evaluate.rotation import _turned

    splits = load("world", size=8, images=512)
    turned = _turned(splits.train)
    for turn in range(4):
        species = splits.train.label[turned.label == turn]
        assert len(species) == 128 and len(set(species.tolist())) > 40


def test_finished_runs_are_measured_once(source: str, tmp_path: Path) -> None:
    made = grid("methods", data=source, seeds=1, runs=str(tmp_path), ask="looc", **QUICK)
    made = replace(made, cells=made.cells[:1])
    outcome = run_study(made, workers=1)
    assert 0 <= outcome.rows[0]["rotation_top1"] <= 100
    place = made.cells[0].run.folder / "measured.json"
    assert json.loads(place.read_text())["rotation_top1"] == outcome.rows[0]["rotation_top1"]
    assert result_of(made.cells[0].run.folder) is not None
