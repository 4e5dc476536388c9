"""Take out one guard after the other, and see a test fail for each: `make mutations`."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic

from mutations.patch import Patch, all_patches

ROOT = Path(__file__).parents[2]
NEEDED = ("pgtasks", "tests", "benchmarks", "docs", "README.md", "CHANGELOG.md", "Makefile",
          "pyproject.toml", "LICENSE")  # fmt: skip
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*")
SECONDS = 300.0
"""The longest that the tests of one patch may take: without a bound some never end."""

PASSED, FAILED = 0, 1
"""What pytest returns; most other numbers mean that the tests did not run."""


def main(names: Sequence[str]) -> int:
    """Try the patches that are named, or all; return the exit code."""
    patches = [patch for patch in all_patches() if not names or patch.name in names]
    if unknown := set(names) - {patch.name for patch in patches}:
        print(f"no such patch: {', '.join(sorted(unknown))}")
        return 2
    unseen = [patch.name for patch in patches if not _is_noticed(patch)]
    print(f"{len(patches) - len(unseen)} of {len(patches)} guards are missed by a test")
    if unseen:
        print(f"not noticed: {', '.join(unseen)}")
    return bool(unseen)


def _is_noticed(patch: Patch) -> bool:
    """Whether the tests pass as things are, and one of them fails without the guard."""
    began_at = monotonic()
    with tempfile.TemporaryDirectory(prefix="pgtasks-") as folder:
        tree = _copied(Path(folder))
        before, _ = _run(tree, patch)
        patch.apply(tree)
        after, output = _run(tree, patch)
    is_noticed = (before, after) == (PASSED, FAILED)
    word = "noticed" if is_noticed else f"NOT NOTICED (with the guard {before}, without {after})"
    print(f"{patch.name:<32} {word} in {monotonic() - began_at:.0f} s: {patch.sentence}")
    for line in output.splitlines():
        if line.startswith("FAILED") or not is_noticed:
            print(f"    {line[:160]}")
    sys.stdout.flush()
    return is_noticed


def _copied(folder: Path) -> Path:
    for name in NEEDED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=LEFT_OUT)
        else:
            shutil.copy2(ROOT / name, folder / name)
    return folder


def _run(tree: Path, patch: Patch) -> tuple[int, str]:
    """Run the patch's tests on the copy, which stands before any installed pgtasks."""
    options = ("-q", "-x", "-p", "no:cacheprovider", "--timeout", "60")
    tests = subprocess.Popen(
        [sys.executable, "-m", "pytest", *options, *patch.tests],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = tests.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(tests.pid, signal.SIGKILL)
        output, _ = tests.communicate()
        return FAILED, f"{output}\nFAILED to end within {SECONDS:g} s"
    return tests.returncode, output


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
