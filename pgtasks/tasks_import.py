"""Importing the modules that hold a program's tasks."""

import importlib
import sys
import traceback
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from pgtasks.errors import TaskImportError
from pgtasks.registry import default_registry


def import_tasks(modules: Iterable[str]) -> None:
    """Import modules by name, for the tasks they register.

    Raises:
        TaskImportError: one does not import; the text says which line of whose file failed.
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    for module in modules:
        _import(module)


def check_registered(modules: Iterable[str]) -> None:
    """Make sure that at least one task is registered.

    Raises:
        TaskImportError: none is; the text says what was imported.
    """
    if not len(default_registry):
        raise TaskImportError(
            f"no task is registered by {', '.join(modules) or 'any module'}; decorate a function "
            "with @pgtasks.task in one of them"
        )


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not (module == error.name or module.startswith(f"{error.name}.")):
            raise _failed(module, error) from error
        raise TaskImportError(_not_found(module)) from None
    except BaseException as error:  # user code: it may also say sys.exit()
        raise _failed(module, error) from error


def _not_found(module: str) -> str:
    as_path = module.removesuffix(".py").replace("/", ".")
    if as_path != module and _exists(as_path):
        return f"no module named {module!r}; name it as Python does: {as_path!r}"
    return (
        f"no module named {module!r} in {Path.cwd()} or on the Python path; "
        "run from the folder that holds it, or install it"
    )


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _failed(module: str, error: BaseException) -> TaskImportError:
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if "importlib" not in frame.filename
              and frame.filename != __file__]  # fmt: skip
    where = "".join(traceback.format_list(theirs[-3:])).rstrip()
    why = "".join(traceback.format_exception_only(error)).strip()
    return TaskImportError(f"the task module {module!r} does not import:\n{where}\n{why}")
