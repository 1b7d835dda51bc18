"""What a provider raised, as a reason of one line."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from mfbench.providers.exceptions import LONGEST, reason

BUILD = f"""Error building extension 'mine': [1/2] c++ {"-I/somewhere " * 100}
FAILED: main.o
main.cpp:2:10: error: expected primary-expression
ninja: build stopped: subcommand failed."""


def test_an_error_of_one_line_is_told_whole() -> None:
    assert reason(ValueError("expected 3, got 4")) == "ValueError: expected 3, got 4"
    assert reason(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_of_a_compilers_output_the_error_is_told() -> None:
    told = reason(RuntimeError(BUILD))
    assert told.startswith("RuntimeError: Error building extension 'mine'")
    assert told.endswith("… main.cpp:2:10: error: expected primary-expression")
    assert len(told) < LONGEST + 100


def test_of_tritons_error_the_last_line_is_told() -> None:
    told = reason(RuntimeError("at 3:4:\n    x = foo(y)\n        ^\nNameError('foo is not defined')"))
    assert told == "RuntimeError: at 3:4: … NameError('foo is not defined')"


def test_the_line_of_the_users_code_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("import json\n\n\ndef step():\n    json.loads('{')\n")
    spec = importlib.util.spec_from_file_location("mine", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(ValueError, match="Expecting") as caught:
        module.step()
    frames = caught.value.with_traceback(caught.tb.tb_next)  # without this file's own
    assert reason(frames).endswith("(mine.py, line 5)")
