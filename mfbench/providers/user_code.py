"""Import a user's provider from a file, `path/to/file.py:function`, or from a package, `pkg.module:function`."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from mfbench.errors import UsageError
from mfbench.installation import MEASURED, ROOT
from mfbench.providers.exceptions import reason
from mfbench.wording import nearest

OURS = (*MEASURED, "mfbench")
MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:\w+")  # `pkg.module:function`


class Location(NamedTuple):
    """Where a provider's function is."""

    module: str  # the path of a file, or a dotted name
    function: str

    @property
    def is_file(self) -> bool:
        """Return whether the module is given by its file."""
        return self.module.endswith(".py")


def locate(name: str) -> Location | None:
    """Return the module and the function that a provider's name gives; None for a name of another kind."""
    path, colon, function = name.rpartition(".py:")
    if colon:
        return Location(f"{path}.py", function)
    return Location(*name.split(":")) if MODULE.fullmatch(name) else None


def check(location: Location, argument: str) -> None:
    """Check that the file or the top-level package exists, without running any of it.

    Raises:
        UsageError: it does not.
    """
    if location.is_file:
        if not Path(location.module).is_file():
            raise UsageError(f"no file {location.module}", code="no-such-provider", argument=argument)
        return
    package = location.module.partition(".")[0]
    _search_first(Path.cwd())
    if importlib.util.find_spec(package) is None:
        message = f"no package {package!r} here or on Python's path"
        raise UsageError(message, code="no-such-provider", argument=argument)


def load(location: Location) -> Callable[..., Any]:
    """Import the module and return the function.

    Raises:
        UsageError: the module cannot be imported, or has no such function.
    """
    module, function = location
    try:
        loaded = _import_file(Path(module)) if location.is_file else _import_module(module, Path.cwd())
    except UsageError:
        raise
    except Exception as error:
        folder = Path(module).resolve().parent if location.is_file else Path.cwd()
        hint = f"; {rename(folder)}" if foreign_beside(folder) else ""
        message = f"{module} cannot be imported: {reason(error)}{hint}"
        raise UsageError(message, code="provider-load-failed", argument="provider") from error
    found: object = getattr(loaded, function, None)
    if not callable(found):
        functions = [name for name, value in vars(loaded).items() if callable(value) and name[0] != "_"]
        message = f"{module} has no function {function!r}{nearest(function, functions)}"
        raise UsageError(message, code="no-such-function", argument="provider")
    return found


def _import_file(path: Path) -> ModuleType:
    """Import a file: a module of its package, if it lies in one, so that its relative imports work."""
    path = path.resolve()
    names, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    if len(names) == 1:
        return _import_lone_file(path)
    _search_first(path.parent)  # for absolute imports of the files beside it
    module = _import_module(".".join(names), folder)
    if not module.__file__ or not path.samefile(module.__file__):
        raise ImportError(f"{module.__file__} has the same name, {module.__name__}")
    return module


def _import_module(name: str, folder: Path) -> ModuleType:
    if name.partition(".")[0] in foreign_beside(folder):
        raise UsageError(f"{name}: {rename(folder)}", code="foreign-package", argument="provider")
    _search_first(folder)
    return importlib.import_module(name)


def _import_lone_file(path: Path) -> ModuleType:
    """Import a file that is in no package. It stays in `sys.modules`, where dataclasses and pickle look for it."""
    name = path.stem
    if name in sys.modules and getattr(sys.modules[name], "__file__", None) != str(path):
        name += f"_{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"  # the name is another module's
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a .py file always has a spec and a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    _search_first(path.parent)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _search_first(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def foreign_beside(folder: Path) -> list[str]:
    """Return the names of our packages under which the folder has a package or module of another project."""
    return [
        name
        for name in OURS
        if ((folder / name / "__init__.py").is_file() or (folder / f"{name}.py").is_file())
        and (folder / name).resolve() != ROOT / name
    ]


def rename(folder: Path) -> str:
    """Return the advice to rename what `foreign_beside` finds in a folder."""
    names = ", ".join(map(repr, foreign_beside(folder)))
    return f"your {names} in {folder} has the name of a package of mfbench's, which is imported instead; rename it"
