"""One process of a launch. `test_session.py` has several."""

from __future__ import annotations

import numpy as np
import pytest
import torch.distributed as dist

from mfbench.correctness import gate
from mfbench.measure.planning import Goal
from mfbench.measure.scaling.member import Job, Member, _whole
from mfbench.problems.cases import Case
from mfbench.problems.inputs import draw
from mfbench.problems.shared import SharedInputs
from mfbench.providers.registry import Outputs

CASE = Case(suite="s", m=24, n=10, rank=3, density=0.8, ratings_dtype="float32", mask="uint8", data="synthetic", seed=1)


def member_with(case: Case, providers: tuple[str, ...], grouped: bool = True) -> tuple[Member, SharedInputs]:
    made, inputs = Member(dist.group.WORLD), SharedInputs(draw(case))
    made.all_do("prepare", Job(inputs.location, providers, providers[-1], Goal(1.0), 1, grouped, "fused"))
    return made, inputs


@pytest.mark.usefixtures("one_process")
@pytest.mark.parametrize("grouped", [True, False])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_steps_pass_the_gate_also_after_their_data_moved(layout: str, grouped: bool) -> None:
    case = CASE.model_copy(update={"layout": layout, "mask": "none" if layout == "sparse" else "uint8"})
    member, inputs = member_with(case, ("fused", "tiled", "gather", "autograd"), grouped)
    member.all_do("place")
    standard = gate.standard(inputs.inputs)
    for name in member.steps:
        (seconds,) = member.all_do("sample", name, 2)
        assert seconds > 0
        checks = standard.judge(_whole(member.all_do("outputs", name)))
        assert all(check.ok for check in checks.values()), name


@pytest.mark.usefixtures("one_process")
def test_a_provider_that_raises_is_named() -> None:
    member, _ = member_with(CASE, ("fused",))

    def tired() -> Outputs:
        raise ValueError("no more")

    member.steps["fused"] = tired
    with pytest.raises(RuntimeError, match="fused: ValueError: no more"):
        member.all_do("sample", "fused", 1)


def test_users_are_joined_and_sums_must_agree() -> None:
    def outputs(users: int, shift: float = 0.0) -> list[np.ndarray]:
        return [np.array(1.0), np.full((users, 3), users), np.ones((10, 3)) + shift, np.full((users, 1), users),
                np.ones((10, 1)), np.ones(1)]  # fmt: skip

    loss, dP, dQ, dbu, _, _ = _whole([outputs(2), outputs(0), outputs(3)])
    assert (loss, dQ.shape) == (1.0, (10, 3))
    assert dP[:, 0].tolist() == dbu[:, 0].tolist() == [2, 2, 3, 3, 3]
    with pytest.raises(RuntimeError, match="process 1 has another sum over the processes than process 0"):
        _whole([outputs(2), outputs(3, 1e-9)])
