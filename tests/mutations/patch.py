"""Patch: one guard taken out, why that matters, and the tests that are to notice."""

import shlex
import subprocess
from pathlib import Path
from typing import Self

import attrs

FOLDER = Path(__file__).parent
TESTS = "Tests: "


@attrs.frozen
class Patch:
    """A file of this folder: a sentence, a line of tests, and a difference that git can apply."""

    path: Path
    sentence: str
    tests: tuple[str, ...]
    """Arguments for pytest."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read one patch.

        Raises:
            ValueError: it does not say which tests are to notice it.
        """
        head, found, _ = path.read_text("utf-8").partition("\ndiff --git ")
        said, named, tests = head.partition(f"\n{TESTS}")
        if not (found and named and said.strip() and tests.strip()):
            raise ValueError(f"{path.name} has to begin with a sentence and a line {TESTS!r}")
        return cls(path, " ".join(said.split()), tuple(shlex.split(tests)))

    @property
    def name(self) -> str:
        """What it is called on the command line."""
        return self.path.stem

    def apply(self, tree: Path, *, only_check: bool = False) -> None:
        """Change the files of a tree, or only see whether that can be done.

        Raises:
            ValueError: the tree has moved on, and the patch with it has to.
        """
        command = ["git", "apply", *["--check"] * only_check, str(self.path.resolve())]
        ran = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise ValueError(f"{self.path.name} no longer fits: {ran.stderr.strip()}")


def all_patches() -> list[Patch]:
    """Return the patches of this folder, by name."""
    return [Patch.read(path) for path in sorted(FOLDER.glob("*.patch"))]
