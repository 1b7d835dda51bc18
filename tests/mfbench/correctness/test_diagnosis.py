"""Wrong kernels are told what is wrong with them in terms of the formula; rounding and the unexplained are not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from mfbench.correctness import gate
from mfbench.problems.inputs import Inputs
from mfbench.providers.outputs import OUTPUTS
from reference import autograd_loss_and_grads

M, N, RANK = 200, 150, 12
PLACES = {name: place for place, name in enumerate(OUTPUTS)}


def inputs(missing: float = 9.5) -> Inputs:
    generator = torch.Generator().manual_seed(3)
    P, Q, bu, bi, mu = (
        torch.randn(shape, generator=generator) for shape in ((M, RANK), (N, RANK), (M, 1), (N, 1), (1,))
    )
    ratings = torch.randint(1, 11, (M, N), generator=generator) / 2
    mask = (torch.rand((M, N), generator=generator) < 0.6).to(torch.uint8)
    return Inputs(P, Q, bu, bi, mu, torch.where(mask != 0, ratings, missing), mask, reg=0.5)


@pytest.fixture(scope="module")
def case() -> tuple[Inputs, gate.Standard]:
    drawn = inputs()
    return drawn, gate.standard(drawn)


@pytest.mark.parametrize(("power", "hint"), [
    (0, "treats the weights as a binary mask"), (0.5, "has the weights to the first power, not squared"),
])  # fmt: skip
def test_wrong_weights_are_named(power: float, hint: str) -> None:
    drawn = inputs()
    drawn = drawn._replace(mask=drawn.mask * (1 + torch.rand((M, N), generator=torch.Generator().manual_seed(0))))
    wrong = drawn._replace(mask=torch.where(drawn.mask != 0, drawn.mask**power, 0))
    verdicts = gate.standard(drawn).judge(list(outputs(wrong).values()))
    assert verdicts["loss"].hint == hint
    assert not any(verdict.ok for verdict in verdicts.values())


def outputs(drawn: Inputs) -> dict[str, np.ndarray]:
    loss, grads = autograd_loss_and_grads(*drawn)
    return dict(zip(OUTPUTS, [value.double().numpy() for value in (loss, *grads)], strict=True))


def hints(case: tuple[Inputs, gate.Standard], spoil: Callable[[Inputs, dict], None]) -> dict[str, str]:
    drawn, standard = case
    values = {name: value.copy() for name, value in outputs(drawn).items()}
    spoil(drawn, values)
    return {name: v.hint for name, v in standard.judge(list(values.values())).items() if not v.ok}


def set_to(name: str, change: Callable[[Inputs, np.ndarray], np.ndarray]) -> Callable[[Inputs, dict], None]:
    def spoil(drawn: Inputs, values: dict) -> None:
        values[name] = np.asarray(change(drawn, values[name]), dtype=np.float64)

    return spoil


def part(change: Callable[[np.ndarray], None]) -> Callable[[Inputs, np.ndarray], np.ndarray]:
    def changed(_: Inputs, value: np.ndarray) -> np.ndarray:
        change(value)
        return value

    return changed


def data_of_P(d: Inputs, v: np.ndarray) -> np.ndarray:
    return v - 2 * d.reg * d.user_factors.numpy()


@pytest.mark.parametrize(("name", "change", "expected"), [
    ("user_bias", lambda d, v: v / 2, "is off by a factor of 0.5 everywhere"),
    ("loss", lambda d, v: 2 * v, "is off by a factor of 2 everywhere"),
    ("item_factors", lambda d, v: -v, "has the wrong sign everywhere"),
    ("item_bias", lambda d, v: 0 * v, "is zero everywhere"),
    ("user_factors", data_of_P, "lacks the regulariser 2·reg·P"),
    ("user_factors", lambda d, v: v - d.reg * d.user_factors.numpy(),
     "has the regulariser as reg·P, without the factor 2 of its derivative"),
    ("user_factors", lambda d, v: 2 * d.reg * d.user_factors.numpy() + data_of_P(d, v) / 2,
     "has its sum over the ratings off by a factor of 0.5; the regulariser is right"),
    ("item_bias", lambda d, v: 2 * d.reg * d.item_bias.numpy(),
     "is the regulariser alone, without its sum over the ratings"),
    ("item_bias", lambda d, v: v + 2 * d.reg * d.item_bias.numpy(), "has the regulariser 2·reg·bi twice"),
    ("global_bias", lambda d, v: v + 2 * d.reg * d.global_bias.numpy(),
     "is regularised, which the global bias is not"),
    ("loss", lambda d, v: v - d.reg * sum(float(p.double().square().sum()) for p in d[:4]),
     "lacks the regulariser reg·(|P|² + |Q|² + |bu|² + |bi|²)"),
    ("user_factors", part(lambda v: v[192:].fill(0)),
     "is wrong only in rows 192 to 199 of 200 (96 of 2,400 entries): past the edge of a tile of 64"),
    ("user_factors", part(lambda v: v[:, 8:].__imul__(3)),
     "is wrong only in columns 8 to 11 of 12 (800 of 2,400 entries)"),
    ("item_factors", part(lambda v: v[128:].fill(np.nan)),
     "is NaN only in rows 128 to 149 of 150 (264 of 1,800 entries): past the edge of a tile of 128"),
    ("user_bias", lambda d, v: v * np.nan,
     "is NaN everywhere: it was never written, or an unobserved rating reached it"),
    ("item_factors", part(lambda v: v[[3, 90], [1, 2]].fill(0) or v.__setitem__(([3, 90], [1, 2]), 0)),
     "is wrong at 2 of 1,800 entries, the first at [3, 1], [90, 2]"),
    ("item_factors", lambda d, v: v.T, "has shape (12, 150), expected (150, 12)"),
])  # fmt: skip
def test_a_spoiled_output_is_explained(case, name: str, change, expected: str) -> None:
    assert hints(case, set_to(name, change)) == {name: expected}


@pytest.mark.parametrize(("bias", "letter"), [("user_bias", "bu"), ("item_bias", "bi"), ("global_bias", "mu")])
def test_a_bias_missing_from_the_prediction_is_named(case, bias: str, letter: str) -> None:
    def spoil(drawn: Inputs, values: dict) -> None:
        own = drawn.reg * float(getattr(drawn, bias).double().square().sum()) if bias != "global_bias" else 0.0
        values.update(outputs(drawn._replace(**{bias: torch.zeros_like(getattr(drawn, bias))})))
        values["loss"] = values["loss"] + own
        if bias != "global_bias":
            values[bias] = values[bias] + 2 * drawn.reg * getattr(drawn, bias).double().numpy()

    found = hints(case, spoil)
    assert set(found) == set(OUTPUTS)
    assert list(found.values()) == [f"lacks {letter} in the prediction", *["has the same error"] * 5]


def test_a_mask_that_is_not_looked_at_is_named(case) -> None:
    found = hints(case, lambda d, values: values.update(outputs(d._replace(mask=torch.ones_like(d.mask)))))
    assert list(found.values()) == ["includes the unobserved ratings", *["has the same error"] * 5]


def test_unobserved_ratings_that_count_as_zeros_are_named(case) -> None:
    def spoil(drawn: Inputs, values: dict) -> None:
        zeros = drawn.ratings * drawn.mask
        values.update(outputs(drawn._replace(ratings=zeros, mask=torch.ones_like(drawn.mask))))

    assert list(hints(case, spoil).values()) == ["treats unobserved ratings as zeros", *["has the same error"] * 5]


def test_nothing_is_explained_away(case) -> None:
    rng = np.random.default_rng(1)
    noise = set_to("user_factors", lambda d, v: v + rng.standard_normal(v.shape))
    assert hints(case, noise) == {"user_factors": ""}


@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_explanations_hold_at_every_scale(scale: float) -> None:
    drawn = inputs()
    scaled = drawn._replace(
        **{name: getattr(drawn, name) * (scale if "bias" in name else scale**0.5) for name in Inputs._fields[:5]},
        ratings=drawn.ratings * scale, reg=drawn.reg * scale,
    )  # fmt: skip
    case = scaled, gate.standard(scaled)
    assert hints(case, set_to("user_bias", lambda d, v: v / 2)) == {"user_bias": "is off by a factor of 0.5 everywhere"}
    assert hints(case, set_to("user_factors", data_of_P)) == {"user_factors": "lacks the regulariser 2·reg·P"}


def test_right_outputs_need_no_explanation(case) -> None:
    assert hints(case, lambda d, v: None) == {}
