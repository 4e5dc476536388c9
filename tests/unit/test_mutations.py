"""The patches that take guards out still fit the tree."""

import shutil
from pathlib import Path

import pytest
from mutations.patch import Patch, all_patches

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(shutil.which("git") is None, reason="git applies the patches")
@pytest.mark.parametrize("patch", all_patches(), ids=lambda patch: patch.name)
def test_patch_fits_and_its_tests_are_there(patch: Patch) -> None:
    patch.apply(ROOT, only_check=True)

    files = [ROOT / name.partition("::")[0] for name in patch.tests if name.startswith("tests/")]
    assert files
    assert all(file.exists() for file in files)


def test_patch_without_tests_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "no-tests.patch"
    path.write_text("A sentence.\n\ndiff --git a/x b/x\n")

    with pytest.raises(ValueError, match="no-tests.patch has to begin"):
        Patch.read(path)


@pytest.mark.skipif(shutil.which("git") is None, reason="git applies the patches")
def test_patch_that_no_longer_fits_says_so(tmp_path: Path) -> None:
    path = tmp_path / "old.patch"
    (tmp_path / "file").write_text("new\n")
    path.write_text(
        "A sentence.\nTests: tests/x.py\n\n"
        "diff --git a/file b/file\n--- a/file\n+++ b/file\n@@ -1 +1 @@\n-old\n+older\n"
    )

    with pytest.raises(ValueError, match="old.patch no longer fits"):
        Patch.read(path).apply(tmp_path, only_check=True)
