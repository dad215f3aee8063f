"""`make bench`: all tables, each in a process of its own, so that none inherits another's memory or threads.

`python -m benchmarks [NAME ...] [--json FILE]`: the named ones. Exits with 1 when a target is missed by more than 20 %,
or results that should agree do not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

TABLES = ("window", "methods", "batch", "knn", "invp", "views", "step", "memory", "growth", "ledger")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TABLES)}; all of them without")
    parser.add_argument("--json", type=Path, help="writes everything raw to this file")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(TABLES):
        parser.error(f"no table is called {', '.join(sorted(unknown))}: there are {', '.join(TABLES)}")
    tables = [run(name) for name in asked.names or TABLES]
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        asked.json.write_text(json.dumps({"tables": tables}, indent=1) + "\n", encoding="utf-8")
    failed = [line for table in tables for line in failures(table)]
    rows = sum(len(table["rows"]) for table in tables)
    spent = sum(table["seconds"] for table in tables)
    print("\n  ".join([f"{rows} rows in {spent:.0f} s, {len(failed)} failed", *failed]))
    raise SystemExit(int(bool(failed)))


def run(name: str) -> dict[str, Any]:
    """One table, printed as it comes; what it wrote, its exit code and seconds."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "table.json"
        code = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", "--json", str(file)], check=False).returncode
        table = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"table": name, "rows": []}
    return {**table, "exit code": code, "seconds": time.monotonic() - began}


def failures(table: dict[str, Any]) -> list[str]:
    """Rows that fail, and a table that did not come to its end."""
    lines = [f"{table['table']}: {row['group']}: {row['name']}" for row in table["rows"] if row["fails"]]
    return lines or ([f"{table['table']}: exit code {table['exit code']}"] if table["exit code"] else [])


if __name__ == "__main__":
    main()
