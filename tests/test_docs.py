"""README and docs: examples run, commands parse, expressions read back, links resolve, tables are complete."""

from __future__ import annotations

import functools
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from examples import run_examples
from test_layers import LAYERS

import onca
from onca import cli
from onca.part import NAMES, Part
from onca.train import Run

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = [*PAGES, ROOT / "CITATION.cff", ROOT / "zensical.toml", *sorted((ROOT / "docs").rglob("*.[cj]s*"))]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def fences(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def spans(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


# --- examples --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [page for page in PAGES[1:] if fences(page, "python")], ids=name)
def test_the_examples_of_a_page_run_as_they_stand_and_print(page: Path, tmp_path: Path) -> None:
    code, printed = run_examples(fences(page, "python"), tmp_path)
    assert code == 0, printed
    assert printed.strip()


def test_the_readme_example_is_short_and_prints_three_losses() -> None:
    (block,) = fences(ROOT / "README.md", "python")
    assert len(block.splitlines()) <= 15
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=True)
    lines = [line.split("  ", 1) for line in done.stdout.splitlines()]
    assert [onca.read(text).kind for _, text in lines] == ["objective", "method", "method"]
    everything, hardest, _ = (float(loss) for loss, _ in lines)
    assert 0 < hardest < everything  # fewer negatives, less loss


# --- commands --------------------------------------------------------------------------------------------------------


def commands() -> Iterator[tuple[str, str]]:
    """Every `onca ...` of a shell block or a code span, with its page."""
    for page in PAGES:
        blocks = [block.replace("\\\n", " ") for block in fences(page, "sh")]
        lines = [line for block in blocks for line in block.splitlines()] + spans(page)
        yield from ((name(page), line) for line in dict.fromkeys(lines) if re.match("onca [a-z]", line))


def parsed_only(verb: Callable[..., Any], calls: list[dict[str, Any]]) -> Callable[..., int]:
    """A stand-in with the verb's own signature, so that its command line is read for real and nothing is run."""

    @functools.wraps(verb)
    def remember(*args: Any, **named: Any) -> int:
        calls.append(inspect.signature(verb).bind(*args, **named).arguments)
        return 0

    return remember


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for verb, function in cli.VERBS.items():
        monkeypatch.setitem(cli.VERBS, verb, parsed_only(function, found))
    return found


@pytest.mark.parametrize(("page", "command"), list(commands()), ids=lambda text: text)
def test_a_command_parses(page: str, command: str, calls: list[dict[str, Any]]) -> None:
    words = shlex.split(command, comments=True)[1:]
    if " ".join(words) in {*cli.VERBS, "data"}:
        return  # the name of a command, which may need arguments
    try:
        assert cli.main(words) == 0
        assert len(calls) == 1
    except SystemExit as ended:  # --help, or flags that do not exist
        assert ended.code == 0, f"{page}: {command}"


def test_the_check_of_commands_sees_a_flag_that_does_not_exist(calls: list[dict[str, Any]]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", "--windows", "5"])
    assert ended.value.code == 2 and not calls
    assert cli.main(["train", "--method", "chain(keep(hardst(5)), infonce)"]) == 2 and not calls


def test_every_flag_that_is_named_exists() -> None:
    known = {parameter for verb in cli.VERBS.values() for parameter in inspect.signature(verb).parameters}
    known |= set(Run.__dataclass_fields__) | {"help"}
    for page in PAGES:
        for flag in re.findall(r"(?<![\w-])--([a-z][a-z-]*)", " ".join(spans(page))):
            assert flag.replace("-", "_") in known, f"{name(page)}: --{flag}"


# --- expressions -----------------------------------------------------------------------------------------------------


def expressions() -> Iterator[tuple[str, str]]:
    """Lines of blocks marked onca, and code spans that hold a whole method."""
    for page in PAGES:
        lines = [line for block in fences(page, "onca") for line in block.splitlines() if line.strip()]
        whole = [s for s in spans(page) if s.startswith(("chain(", "total(")) and "*" not in s and "..." not in s]
        yield from ((name(page), line) for line in dict.fromkeys(lines + whole))


@pytest.mark.parametrize(("page", "text"), list(expressions()), ids=lambda text: text)
def test_an_expression_reads_and_prints_back(page: str, text: str) -> None:
    part = onca.read(text)
    assert part.kind in ("method", "objective")
    assert "".join(str(part).split()) == "".join(text.split())


def test_the_tables_of_the_algebra_hold_every_name_with_its_arguments() -> None:
    page = (ROOT / "docs" / "algebra.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([a-z_]+)(\([^`]*\))?` \|", page, re.M)
    assert {word for word, _ in rows} == set(NAMES) & set(onca.__all__)  # other tests may register names of their own
    for word, arguments in rows:
        part = NAMES[word]
        assert bool(arguments) == (not isinstance(part, Part)), word
        if arguments and word not in ("chain", "total"):
            stated = [argument.split("=")[0].strip() for argument in arguments[1:-1].split(",")]
            assert stated == [field.name for field in fields(part)], word


# --- what pages say of the code --------------------------------------------------------------------------------------


def test_the_layers_of_the_design_are_those_that_are_tested() -> None:
    (block,) = fences(ROOT / "docs" / "design.md", "layers")
    assert tuple(line.split()[0] for line in block.splitlines()) == LAYERS


def test_every_public_name_is_in_the_reference() -> None:
    index = spans(ROOT / "docs" / "reference" / "index.md")
    assert set(onca.__all__) <= set(index), set(onca.__all__) - set(index)


def test_every_layer_has_a_page_of_the_reference_in_the_navigation() -> None:
    config = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    (reference,) = (entry["Reference"] for entry in config["project"]["nav"] if "Reference" in entry)
    listed = [next(iter(page)) for page in reference][1:]
    assert listed == [layer.rstrip("/") for layer in LAYERS if layer != "__main__"]
    for layer in listed:
        assert f"::: onca.{layer}\n" in (ROOT / "docs" / "reference" / f"{layer}.md").read_text(encoding="utf-8")


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r'"([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8")))
    assert {page.relative_to(ROOT / "docs").as_posix() for page in PAGES if (ROOT / "docs") in page.parents} <= listed


def test_the_files_that_pages_name_exist() -> None:
    for page in PAGES:
        for path in re.findall(r"`((?:tests|benchmarks|src|docs|\.ci)/[\w/.-]+)`", prose(page)):
            assert (ROOT / path).exists(), f"{name(page)}: {path}"


def test_version_and_licence_agree() -> None:
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f'version: "{onca.__version__}"' in cited and project["version"] == onca.__version__
    assert f"license: {project['license']}" in cited
    assert f"## {onca.__version__}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# --- links -----------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """What headings of a page are called in links."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings_that_are_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.is_file(), f"{name(page)}: {link}"
        assert not anchor or anchor in anchors(target), f"{name(page)}: {link}"
        inside = (ROOT / "docs") not in page.parents or (ROOT / "docs") in target.parents
        assert inside, f"{name(page)}: {link} leads out of the pages that are built"


@pytest.mark.parametrize("text", TEXTS, ids=name)
def test_no_page_names_a_machine_a_registry_or_a_foreign_host(text: Path) -> None:
    content = text.read_text(encoding="utf-8")
    assert not re.findall(r"/(?:work|root|home|tmp|Users|mnt)/|pypi|pythonhosted|localhost", content)
    hosts = set(re.findall(r"https?://([\w.-]+)", content))
    assert hosts <= {"arxiv.org", "github.com"}, hosts
