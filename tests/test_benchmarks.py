"""The benchmarks at tiny sizes: results are compared before anything is timed, and a missed target is said and fails.

No figure is asserted here: only that tables come out whole, and that what would make them mean nothing is refused.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import onca
from benchmarks import batch, data, growth, invp, knn, ledger, machine, measure, memory, methods, step, views, window
from benchmarks.__main__ import TABLES, failures
from benchmarks.measure import Row, Table, Target, Unequal, agree, compare, slope
from benchmarks.table import as_json, lines, main, verdict

ROOT = Path(__file__).parent.parent
SIZE = (8, 400, 16)
SMALL = {
    "window": lambda: window.table(SIZE, SIZE),
    "methods": lambda: methods.table((8, 1000, 16)),
    "batch": lambda: batch.table(32, 16),
    "knn": lambda: knn.table((500,), 16, 16, (1, 20)),
    "invp": lambda: invp.table(8, 400, 16),
    "views": lambda: views.table({32: 4, 96: 2}),
    "ledger": lambda: ledger.table(600, 20, "small(4)", ("infonce",)),
    "growth": lambda: growth.table({"queries": (4, 8), "percent": (1, 100)}, growth.BASE | {"keys": 300}),
}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Few pairs, and no compiling, which takes half a minute."""
    monkeypatch.setattr(measure, "PAIRS", 3)
    monkeypatch.setattr(measure, "SECONDS", 0)
    monkeypatch.setattr(growth, "ROUNDS", 2)
    monkeypatch.setattr(growth, "SECONDS", 0)
    monkeypatch.setattr(memory, "PROCESSES", 1)
    monkeypatch.setattr(step, "WARM_UP", 1)
    monkeypatch.setattr(ledger, "WARM_UP", 1)
    monkeypatch.setattr(machine, "compiler", lambda: None)


def about():
    return machine.environment() | {"load before": 0.1, "load after": 0.2}


def sound(table: Table) -> None:
    """Nothing differs, every row is measured or its peer is missing, and all of it prints and is JSON."""
    for row in table.rows:
        assert row.state in ("measured", "not here"), row
        assert (row.found is None) == (row.state == "not here") or not row.theirs, row
    printed = lines(table, about())
    assert max(map(len, printed)) <= 100, max(printed, key=len)
    written = json.loads(json.dumps(as_json(table, about())))
    assert [row["name"] for row in written["rows"]] == [row.name for row in table.rows]
    assert written["environment"]["threads"] == 1 and written["environment"]["versions"]["onca"] == onca.__version__


@pytest.mark.parametrize("name", SMALL)
def test_tables_come_out_whole_and_both_sides_agree(name):
    table = SMALL[name]()
    assert table.name == name and name in TABLES
    sound(table)


def test_memory_is_measured_in_a_fresh_process():
    row = memory.measured("infonce", (4, 3000, 8), "float32", 15)
    sound(Table("memory", "", (row,), ""))
    assert row.state == "not here" or len(row.more["megabytes"]) == 1


def test_steps_are_measured(tmp_path):
    row = step.moco(str(tmp_path), 8, "small(8)")
    setting = {"encoder": "small(8)", "images": 60, "size": 32, "batch": 16, "queue": 32, "runs": str(tmp_path)}
    run = step.Run(**setting, device="cpu")
    share = step.share(run, step.load_data(run), 3)
    assert len(share.ours) == 3 and all(set(parts) == set(step.PARTS) for parts in share.more["parts"])
    sound(Table("step", "", (row, share), ""))


# --- planted faults ---------------------------------------------------------------------------------------------------


def test_one_entry_too_few_in_a_window_is_noticed(monkeypatch):
    sides = window.Sides((8, 4000, 16), "spread", torch.float32)
    assert sides.against("right", window.by_topk).state == "measured"
    monkeypatch.setattr(window, "number", lambda keys: 199)
    row = sides.against("wrong", window.by_topk)
    assert row.state == "unequal" and row.fails and not row.ours and "results differ" in row.note


@pytest.mark.parametrize("dense", [methods.window, methods.debiased, methods.hcl, methods.refill])
def test_a_method_against_another_ones_dense_form_is_noticed(dense):
    """The method that is named fills nothing up again."""
    row = methods.measured("chain(drop(hardest(0.1)), infonce)", dense, (8, 1000, 16), torch.float32)
    assert row.state == "unequal" and row.fails


def test_a_wrong_gradient_is_noticed():
    rows = data.triple(4, 100, 8)
    right = slope(window.logits, *rows)
    wrong = slope(
        lambda query, *others: window.logits(query.detach() + 0.99 * (query - query.detach()), *others), *rows
    )
    assert agree(right, right, 1e-5, 1e-3)() == {"result 0": 0, "result 1": 0}
    with pytest.raises(Unequal, match="result 1"):
        agree(wrong, right, 1e-5, 1e-3)()


def test_results_that_are_not_numbers_are_noticed():
    with pytest.raises(Unequal):
        agree(lambda: [torch.tensor(torch.nan)], lambda: [torch.tensor(1.0)], 1)()


def test_recall_counts_rows_that_are_no_neighbours_and_rows_given_twice():
    keys, query = data.rows(300, 8, 1, "clustered"), data.rows(20, 8, 2, "clustered")
    row = (query @ keys.T).topk(11).indices
    last = knn.last_score(query, keys, 10)
    assert knn.recall(query, keys, row[:, :10], last) == 1
    assert knn.recall(query, keys, row[:, 1:], last) == pytest.approx(0.9)
    twice = torch.cat([row[:, :9], row[:, :1]], 1)
    assert knn.recall(query, keys, twice, last) == pytest.approx(0.9)


def test_a_search_that_misses_one_neighbour_is_not_timed():
    keys, query = data.rows(300, 8, 1, "clustered"), data.rows(20, 8, 2, "clustered")
    best = (query @ keys.T).topk(5)
    last = (query @ keys.T).topk(6).indices[-1, -1]
    wrong = best.indices.clone()
    wrong[-1, -1] = last
    with pytest.raises(Unequal, match=r"theirs: recall 0\.99"):
        knn.exact(query, keys, 5, (lambda: (best.values, best.indices), lambda: (best.values, wrong)))()


def test_views_that_are_none_are_noticed():
    good = views.Sides(32, 4).ours()
    views.sound("good", (4, 3, 32, 32), good)
    still = good()
    for wrong in (lambda: still, lambda: 255 * good(), lambda: good().double(), lambda: good()[:2]):
        with pytest.raises(Unequal):
            views.sound("wrong", (4, 3, 32, 32), wrong)


def test_new_neighbours_are_compared_as_sets():
    graph = torch.arange(400).view(100, 4)
    assert invp.others(graph, graph.flip(1)) == 0
    with pytest.raises(Unequal):
        invp.others(graph, graph + (torch.arange(100) % 20 == 0)[:, None])


# --- figures, targets, exit codes -------------------------------------------------------------------------------------


def test_the_figure_is_the_median_of_the_pairs_ratios_and_sides_take_turns_at_being_first():
    calls = []
    row = compare("", "", lambda: calls.append("ours"), lambda: calls.append("theirs"))
    ratios = sorted(b / a for a, b in zip(row.ours, row.theirs, strict=True))
    assert len(ratios) == measure.PAIRS and row.found == ratios[measure.PAIRS // 2]
    assert calls[:4] == ["ours", "ours", "theirs", "theirs"]  # before the clock starts
    assert calls[4:8] == ["ours", "theirs", "theirs", "ours"]
    turned = compare("", "", lambda: torch.ones(200, 200) @ torch.ones(200, 200), lambda: None, over=True)
    assert turned.found > 1


@pytest.mark.parametrize(
    ("target", "found", "said", "fails"),
    [
        (Target(15), 18.2, "≥ 15: met", False),
        (Target(15), 13.5, "≥ 15: missed by 10 %", False),
        (Target(15), 11.0, "≥ 15: MISSED by 27 %", True),
        (Target(3, most=True), 2.9, "≤ 3: met", False),
        (Target(3, most=True), 3.3, "≤ 3: missed by 10 %", False),
        (Target(3, most=True), 6.0, "≤ 3: MISSED by 100 %", True),
    ],
)
def test_a_target_missed_by_more_than_a_fifth_fails(target, found, said, fails):
    assert verdict(target, found) == said
    assert Row("", "", found, target=target).fails == fails


def test_a_peer_that_is_not_installed_is_said_and_fails_nothing(monkeypatch):
    assert measure.peer("there_is_no_such_module.at_all") is None
    for module in (window, batch, knn, views):
        monkeypatch.setattr(module, "peer", lambda name: None)
    rows = [row for name in ("batch", "knn", "views") for row in SMALL[name]().rows]
    rows.append(window.Sides(SIZE, "spread", torch.float32).against_lightly(17))
    absent = [row for row in rows if row.note == measure.INSTALL]
    assert {row.name.split()[0].removesuffix("'s") for row in absent} >= {"lightly", "faiss", "kornia"}
    assert not any(row.fails for row in absent)
    assert "pip install 'onca[bench]'" in "\n".join(lines(Table("t", "", tuple(absent), ""), about()))


@pytest.mark.parametrize(
    ("found", "state", "code"), [(12, "measured", 0), (9, "measured", 0), (7, "measured", 1), (None, "unequal", 1)]
)
def test_the_exit_code_and_the_json_tell_of_a_missed_target(found, state, code, tmp_path, monkeypatch, capsys):
    file = tmp_path / "new" / "table.json"
    monkeypatch.setattr(sys, "argv", ["table", "--json", str(file)])
    row = Row("group", "name", found, target=Target(10), state=state)
    with pytest.raises(SystemExit) as ended:
        main(lambda: Table("made up", "title", (row,), "checked"))
    assert ended.value.code == code
    assert "made up: title" in capsys.readouterr().out
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written["rows"][0]["fails"] == bool(code)
    assert failures({**written, "exit code": code}) == (["made up: group: name"] if code else [])


def test_a_table_that_breaks_off_fails_the_whole():
    assert failures({"table": "window", "rows": [], "exit code": 2}) == ["window: exit code 2"]


def test_every_table_has_a_module_and_an_unknown_name_is_refused():
    for name in TABLES:
        assert (ROOT / "benchmarks" / f"{name}.py").exists()
    done = subprocess.run([sys.executable, "-m", "benchmarks", "windows"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "windows" in done.stderr


def test_exponents_of_known_powers():
    assert growth.exponent([1, 2, 4, 8], [3 * x**1.5 for x in (1, 2, 4, 8)]) == pytest.approx(1.5)


def test_a_name_too_long_for_its_column_is_wrapped():
    row = Row("g", "chain(drop(hardest(0.1), refill=True), infonce)", 1.0)
    printed = lines(Table("t", "", (row, replace(row, found=2.0)), ""), about())
    assert max(map(len, printed)) <= 100
