"""Two inspections are compared build by build, launch by launch."""

from __future__ import annotations

from mfbench.inspect.difference import differences
from mfbench.inspect.document import Build, Inspection
from tests.mfbench.report.test_page import BUILD, LAUNCHES


def inspection(**changes: object) -> Inspection:
    return Inspection(triton="3.9.0", builds=[Build.model_validate(BUILD | changes)], not_built=[])


def test_a_change_of_any_launch_is_named():
    prepare, step, finish = LAUNCHES
    spilled = finish | {"registers": 64, "stack_bytes": 8}
    assert list(differences(inspection(), inspection(launches=[prepare, step, spilled]))) == [
        "sm_90 32 ieee float32+uint8 fast: finish registers 56 → 64, finish stack 0 → 8",
        "1 of 1 builds changed; before: Triton 3.9.0, now: Triton 3.9.0",
    ]


def test_the_pass_is_compared_once():
    prepare, step, finish = LAUNCHES
    changed = inspection(registers=170, launches=[prepare, step | {"registers": 170}, finish])
    assert next(differences(inspection(), changed)) == "sm_90 32 ieee float32+uint8 fast: registers 168 → 170"


def test_a_document_without_launches_is_compared_by_the_pass():
    assert list(differences(inspection(launches=[]), inspection())) == [
        "0 of 1 builds changed; before: Triton 3.9.0, now: Triton 3.9.0"
    ]
