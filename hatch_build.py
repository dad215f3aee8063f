"""Compiles the native engine when the package is built or installed; without a compiler it installs all the same."""

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class NativeEngine(BuildHookInterface):
    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root).resolve()
        engine = runpy.run_path(str(root / "src" / "onca" / "engine" / "build.py"))
        reason = engine["build"]()
        if reason:
            self.app.display_warning(f"onca is installed without its native engine and will use torch's: {reason}")
        else:
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{engine['platform_tag']()}"  # called through ctypes: any Python will do
        made = engine["REASON" if reason else "OBJECT"]
        build_data["artifacts"].append(f"/{made.relative_to(root).as_posix()}")
