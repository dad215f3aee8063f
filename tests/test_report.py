"""The files of a study and a run: columns, numbers, strict JSON, pages that load nothing, text that stays text."""

import csv
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

from onca.report import StudyResult, read_study, run_page, tables, write_study
from onca.report.page import facts, page, section, table, tag
from onca.study import find
from onca.train import Run

NASTY = 'a</script><script>alert(1)</script><img src="http://example.org/x.png" onerror=alert(2)>&'
GAIN = {
    "keep 85-90": -4.6, "keep 90-95": -3.9, "drop 95-100": -3.1, "drop 90-100": -5.4, "drop 85-100": -6.0,
    "drop same class": 0.9, "drop hardest 0.1%": 0.3,
}  # fmt: skip


def study(preset: str = "demo", seeds: int = 3, host: str = "moco", without: tuple[str, ...] = ()) -> StudyResult:
    """A study with made-up results: a gain a condition, a shift a seed, and a little noise."""
    noise = np.random.default_rng(0)
    conditions = find("cai2020").conditions(preset, Run(host=host))
    shift = noise.normal(0, 1, seeds)
    rows = []
    for condition in conditions:
        for seed in range(seeds):
            top1 = 55 + shift[seed] + GAIN.get(condition.kind, 0.0) + noise.normal(0, 0.2)
            rows.append(
                {
                    "condition": condition.name, "method": condition.method, "temperature": condition.temperature,
                    "seed": seed, "linear_top1": float(top1), "linear_top5": float(top1 + 25 + noise.normal(0, 0.2)),
                    "knn_top1": float(top1 - 6), "split": "test", "images": 2500, "seconds": 26.4, "run": "3f2a91bc",
                }
            )  # fmt: skip
    share = {0.1: [(0.0, 50.0, 0.1), (50.0, 95.0, 0.4), (95.0, 99.9, 0.3), (99.9, 100.0, 0.2)]}
    told = {"data": "world", "versions": {"torch": "2.14.1"}, "epochs": 4}
    kept = tuple(row for row in rows if row["condition"] not in without)
    return StudyResult("cai2020", preset, host, conditions, kept, told, share)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    assert write_study(folder, study("small")) == folder / "report.html"
    return folder


def read_csv(place: Path) -> list[dict[str, str]]:
    with place.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def strictly(place: Path) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(place.read_text(encoding="utf-8"), parse_constant=refuse)


class Elements(HTMLParser):
    """What a page holds: every start tag with its attributes."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(place.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def count(self, name: str) -> int:
        return sum(tag == name for tag, _ in self.found)


# --- tables


def test_csv_files_begin_with_the_contracts_columns(written: Path) -> None:
    runs, lines = read_csv(written / "runs.csv"), read_csv(written / "table.csv")
    assert list(runs[0])[:10] == [
        *("condition", "method", "temperature", "seed"),
        *("linear_top1", "linear_top5", "knn_top1", "split", "images", "seconds"),
    ]
    assert list(runs[0])[10:] == ["run"]
    assert list(lines[0])[:9] == [
        *("condition", "n", "mean", "sd", "low", "high", "difference", "difference_low", "difference_high"),
    ]
    assert len(runs) == 84 and len(lines) == 28


def test_table_csv_agrees_with_numpy_and_scipy(written: Path) -> None:
    """Each line once more from runs.csv; the baseline is the InfoNCE of the same temperature."""
    runs = read_csv(written / "runs.csv")
    for line in read_csv(written / "table.csv"):
        mine = [r for r in runs if r["condition"] == line["condition"]]
        base = [r for r in runs if r["method"] == "infonce" and r["temperature"] == line["temperature"]]
        for metric, prefix in (("linear_top1", ""), ("linear_top5", "top5_")):
            a, b = (np.array([float(r[metric]) for r in rows]) for rows in (mine, base))
            assert float(line[f"{prefix}mean"]) == pytest.approx(a.mean())
            assert float(line[f"{prefix}sd"]) == pytest.approx(a.std(ddof=1))
            low, high = scipy.stats.t.interval(0.95, 2, loc=a.mean(), scale=scipy.stats.sem(a))
            assert [float(line[f"{prefix}{end}"]) for end in ("low", "high")] == pytest.approx([low, high])
            if line["method"] == "infonce":
                assert line[f"{prefix}difference"] == ""
                continue
            interval = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
            found = [float(line[f"{prefix}difference{end}"]) for end in ("", "_low", "_high")]
            assert found == pytest.approx([(a - b).mean(), interval.low, interval.high])
            assert float(line[f"{prefix}p"]) == pytest.approx(scipy.stats.ttest_ind(a, b).pvalue)


def test_study_json_is_strict_and_holds_the_verdicts(written: Path) -> None:
    read = strictly(written / "study.json")
    assert len(read["runs"]) == 84 and len(read["conditions"]) == 28
    verdicts = {v["key"]: v for v in read["verdicts"]}
    assert verdicts["suffices"]["verdict"] == "shown"
    assert verdicts["insufficient"]["difference"]["high"] < 0
    for v in verdicts.values():
        assert v["verdict"] in ("shown", "not shown", "contradicted", "not tested here")
        assert v["difference"]["n"] == 3


def test_what_is_not_finite_is_null_and_no_result(tmp_path: Path) -> None:
    whole = study()
    failed = {**whole.rows[0], "linear_top1": float("nan")}
    write_study(tmp_path, replace(whole, rows=(failed, *whole.rows[1:]), provenance={"loss": float("inf")}))
    read = strictly(tmp_path / "study.json")
    assert read["runs"][0]["linear_top1"] is None
    assert read["provenance"]["loss"] is None
    assert read["conditions"][0]["top1"]["n"] == 2
    assert read_csv(tmp_path / "runs.csv")[0]["linear_top1"] == ""
    assert all(v["difference"]["left_out"] == [0] for v in read["verdicts"] if "baseline" in v["b"])
    assert "seed 0" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_study_reads_back_as_it_was(written: Path) -> None:
    assert read_study(written) == study("small")
    with pytest.raises(ValueError, match=r"study\.json"):
        read_study(written / "figures")


def test_runs_that_belong_to_no_condition_are_refused() -> None:
    whole = study()
    with pytest.raises(ValueError, match="does not plan: stray"):
        tables(replace(whole, rows=({**whole.rows[0], "condition": "stray"},)))


def test_the_papers_numbers_stand_where_they_compare() -> None:
    """Where the study trains at the paper's temperature, that one alone; where it does not, both."""
    small = {s.condition.name: s.reported for s in tables(study("small"))}
    assert [r.top1 for r in small["drop hardest 0.1%"]] == [67.64]
    assert [r.top1 for r in small["drop hardest 0.1% (T=0.07)"]] == [66.25]
    assert small["drop hardest 0.1% (T=0.15)"] == ()
    assert [r.top1 for r in small["keep 95-100"]] == [66.69, 67.32]
    demo = {s.condition.name: s.reported for s in tables(study("demo"))}
    assert [r.top1 for r in demo["drop hardest 0.1%"]] == [66.25, 67.64]


# --- figures and pages


def test_figures_are_files_with_their_data_in_them(written: Path) -> None:
    names = {place.name for place in (written / "figures").iterdir()}
    keys = ("summary", "figure-2", "figure-3", "table-1", "loss-share")
    assert names == {f"{key}.{kind}" for key in keys for kind in ("svg", "png")}
    svg = {key: (written / "figures" / f"{key}.svg").read_text(encoding="utf-8") for key in keys}
    for name in ("keep 85-90", "drop 90-100", "baseline"):
        assert name in svg["figure-2"]
    assert "without the hardest" in svg["figure-3"]
    assert "drop same class but hardest" in svg["table-1"]
    assert "99.9-100" in svg["loss-share"]
    assert "harmful" in svg["summary"]
    for key in keys:
        assert svg[key].count("<path") > 8  # more than axes: the marks are there
        assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", svg[key])
        assert (written / "figures" / f"{key}.png").read_bytes().startswith(b"\x89PNG")


def test_the_page_loads_nothing(written: Path) -> None:
    place = written / "report.html"
    elements = Elements(place)
    for name, attributes in elements.found:
        assert "src" not in attributes and "srcset" not in attributes and name not in ("link", "iframe", "object")
        assert not any(key.startswith("on") for key in attributes)
        if "href" in attributes:
            assert (attributes["href"] or "").startswith("https://arxiv.org/abs/")
    text = place.read_text(encoding="utf-8")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    policy = next(a["content"] for _, a in elements.found if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'")
    assert text.count("window.vegaEmbed=") + text.count("window.vegaEmbed =") == 1  # the chart library, once
    assert len(text) < 2_000_000


def test_text_stays_text(tmp_path: Path) -> None:
    plain = study()
    elements = []
    for name, told in (("plain", "x"), ("nasty", NASTY)):
        conditions = tuple(replace(c, method=c.method + (NASTY if told == NASTY else "")) for c in plain.conditions[1:])
        folder = tmp_path / name
        whole = replace(plain, conditions=(plain.conditions[0], *conditions))
        write_study(folder, replace(whole, provenance={told: told, "data": told}, failures={told: told}))
        elements.append(Elements(folder / "report.html"))
    assert [tag for tag, _ in elements[0].found] == [tag for tag, _ in elements[1].found]


def test_a_page_without_charts_carries_no_library() -> None:
    text = page("t < t", section("a & b", table(("x",), []), facts({"a": {"b": [1, 2]}, "c": None})))
    assert "<title>t &lt; t</title>" in text and "<h2>a &amp; b</h2>" in text
    assert "no finished run yet" in text and "<dt>a.b</dt><dd>1, 2</dd>" in text
    assert "<script" not in text and len(text) < 12_000
    assert tag("p", "5 %", class_='a"b') == '<p class="a&quot;b">5&nbsp;%</p>'


@pytest.mark.parametrize(
    "partial",
    [
        study("demo", seeds=1),
        study("demo", seeds=2, host="simclr"),
        study("demo", without=("keep 85-90", "drop hardest 0.1% same class")),
        study("demo", without=("baseline",)),
        replace(study("demo"), rows=(), loss_share={}),
    ],
    ids=["one seed", "simclr", "missing conditions", "missing baseline", "nothing yet"],
)
def test_partial_studies_have_pages_too(tmp_path: Path, partial: StudyResult) -> None:
    text = write_study(tmp_path, partial).read_text(encoding="utf-8")
    read = strictly(tmp_path / "study.json")
    assert len(read_csv(tmp_path / "table.csv")) == len(partial.conditions)
    assert "nan" not in text.lower().split("<script>")[0].replace("nantes", "")
    for v in read["verdicts"]:
        tested = {v["a"], v["b"]} <= {row["condition"] for row in partial.rows}
        assert (v["verdict"] == "not tested here") == (not tested)
        assert (v["difference"] is None) == (not tested)
        if tested and v["difference"]["n"] == 1:
            assert v["verdict"] == "not shown" and v["difference"]["low"] is None


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium to open the page with")
@pytest.mark.parametrize("width", [1200, 400])
def test_a_browser_draws_every_chart(written: Path, width: int) -> None:
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},4000"]
    address = (written / "report.html").as_uri()
    opened = subprocess.run(
        [*command, "--virtual-time-budget=10000", "--dump-dom", address], capture_output=True, text=True, timeout=120
    )
    body = opened.stdout[opened.stdout.index("<main>") : opened.stdout.index("</main>")]
    assert "could not be drawn" not in body
    assert body.count("<svg") == body.count('class="chart') == 10


# --- runs


def put_run(folder: Path, lines: list[str], *, finished: bool = True) -> Path:
    (folder / "run.json").write_text(json.dumps({"method": "infonce", "data": NASTY, "epochs": 4}))
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    if finished:
        (folder / "result.json").write_text(json.dumps({"linear_top1": 55.4, "split": "test", "images": 2500}))
    return folder


STEPS = [json.dumps({"epoch": s / 10, "step": s, "loss": 8 - s / 10, "images_per_second": 1000 + s}) for s in range(40)]


def test_the_page_of_a_run(tmp_path: Path) -> None:
    place = run_page(put_run(tmp_path, [*STEPS, '{"epoch": 4, "st']))  # the last line was cut off
    text = place.read_text(encoding="utf-8")
    assert "55.40" in text and "40 logged up to step 39" in text and "4.1000" in text
    assert "alert(1)" in text and "<script>alert" not in text
    assert not any("src" in attributes for _, attributes in Elements(place).found)


def test_a_run_in_progress_says_so(tmp_path: Path) -> None:
    text = run_page(put_run(tmp_path, [], finished=False)).read_text(encoding="utf-8")
    assert "Not finished" in text and "Nothing logged yet" in text


def test_damaged_or_absent_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"run\.json"):
        run_page(tmp_path)
    with pytest.raises(ValueError, match="line 2 is not JSON"):
        run_page(put_run(tmp_path, [STEPS[0], "{broken", STEPS[1]]))
