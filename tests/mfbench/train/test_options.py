"""Options of training that do not fit."""

import math

import pytest

from mfbench.errors import UsageError
from mfbench.train.loop import run_training
from mfbench.train.options import TrainOptions


@pytest.mark.parametrize(
    ("arguments", "code", "argument"),
    [
        ({"optimizer": "lbfgs"}, "bad-optimizer", "optimizer"),
        ({"epochs": 0}, "bad-number", "epochs"),
        ({"every": -5}, "bad-number", "every"),
        ({"lr": 0.0}, "bad-number", "lr"),
        ({"lr": math.nan}, "bad-number", "lr"),
        ({"target_rmse": -1.0}, "bad-number", "target_rmse"),
        ({"holdout": 1.0}, "bad-number", "holdout"),
        ({"rank": None}, "bad-number", "rank"),
        ({"provider": "fusde"}, "no-such-provider", "provider"),
        ({"data": "movilens"}, "no-such-data", "data"),
        ({"data": "bfi", "size": (3, 4)}, "bad-size", "size"),
    ],
)
def test_arguments_that_do_not_fit(arguments, code, argument):
    with pytest.raises(UsageError) as raised:
        run_training(TrainOptions(**arguments))
    assert (raised.value.code, raised.value.argument) == (code, argument)
