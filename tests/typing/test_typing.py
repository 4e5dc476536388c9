"""The samples beside this file, as mypy sees them: what is right passes, what is wrong does not."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def check(*files: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", "--no-error-summary",
        "--config-file=", f"--cache-dir={cache}", "--explicit-package-bases", *map(str, files),
    ]  # fmt: skip
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=110, cwd=HERE
    )


@pytest.fixture(scope="module")
def cache(request: pytest.FixtureRequest) -> Path:
    """One cache for these tests, kept between runs: without it each takes half a minute."""
    return request.config.rootpath / ".mypy_cache" / "samples"


@pytest.mark.timeout(240)
def test_right_calls_pass_and_each_wrong_one_is_an_error(cache: Path) -> None:
    checked = check(HERE / "samples_right.py", HERE / "samples_wrong.py", cache=cache)
    assert checked.stdout == ""
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.timeout(240)
def test_an_error_that_disappears_is_noticed(cache: Path, tmp_path: Path) -> None:
    """An `ignore` that nothing needs any more is an error of its own."""
    sample = tmp_path / "sample.py"
    sample.write_text(
        "from pgtasks import task\n\n\n"
        "@task\nasync def send(user_id: int) -> None: ...\n\n\n"
        "async def wrong() -> None:\n"
        "    await send.defer(42)  # type: ignore[arg-type]\n"
        '    await send.defer("42")\n'
    )
    checked = check(sample, cache=cache)
    assert checked.returncode == 1
    assert 'sample.py:9: error: Unused "type: ignore" comment' in checked.stdout
    assert "sample.py:10: error: Argument 1" in checked.stdout
