"""A folder with configuration files, for tests of what they say."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from pgtasks.errors import ConfigError
from pgtasks.layers import Loaded, load


class Project:
    """A folder with configuration files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str, mode: int = 0o600) -> Path:
        """Write one of its files."""
        file = self.folder / name
        file.write_text(text, "utf-8")
        file.chmod(mode)
        return file

    def load(self, overrides: Mapping[str, object] | None = None, /, **environ: str) -> Loaded:
        """Load what is in force here."""
        return load(overrides, folder=self.folder, environ=environ)

    def problems(
        self, overrides: Mapping[str, object] | None = None, /, **environ: str
    ) -> list[str]:
        """Load, and expect mistakes: one a line."""
        with pytest.raises(ConfigError) as caught:
            self.load(overrides, **environ)
        return str(caught.value).splitlines()
