"""The examples of docs/audit.md that need other libraries, each in a process of its own, where they are installed."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "audit.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```py\n(.*?)^```$.*?^```\n(.*?)^```$", PAGE, re.M | re.S)
SHOWN_ON = {"stable_pretraining": "0.1.8", "lightly": "1.6.0"}


def test_each_library_has_an_example() -> None:
    assert [peer_of(program) for program, _ in EXAMPLES] == list(SHOWN_ON)


def peer_of(program: str) -> str:
    return next(peer for peer in SHOWN_ON if f"from {peer}" in program)


@pytest.mark.parametrize(("program", "printed"), EXAMPLES, ids=[peer_of(program) for program, _ in EXAMPLES])
def test_an_example_prints_what_the_page_says(program: str, printed: str) -> None:
    peer = peer_of(program)
    if importlib.util.find_spec(peer) is None:
        pytest.skip(f"audits {peer}, which is not installed: pip install onca[peers]")
    have = version(peer.replace("_", "-"))
    if have != SHOWN_ON[peer]:
        pytest.skip(f"shown on {peer} {SHOWN_ON[peer]}; installed is {have}, which may have been mended")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert printed in done.stdout
