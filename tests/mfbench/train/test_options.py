"""Options of a training run: values that do not fit are refused by name, defaults depend on the data."""

import math
from pathlib import Path

import pytest

from mfbench.errors import UsageError
from mfbench.train.options import TrainOptions
from tests.mfbench.train.runs import run_training


@pytest.mark.parametrize(
    ("arguments", "code", "argument"),
    [
        ({"optimizer": "lbfgs"}, "bad-optimizer", "optimizer"),
        ({"patience": 0}, "bad-number", "patience"),
        ({"epochs": 0}, "bad-number", "epochs"),
        ({"every": -5}, "bad-number", "every"),
        ({"lr": 0.0}, "bad-number", "lr"),
        ({"lr": math.nan}, "bad-number", "lr"),
        ({"target_rmse": -1.0}, "bad-number", "target_rmse"),
        ({"holdout": 1.0}, "bad-number", "holdout"),
        ({"rank": None}, "bad-number", "rank"),
        ({"checkpoint": Path("run"), "checkpoint_every": 0}, "bad-number", "checkpoint_every"),
        ({"checkpoint_every": 5}, "bad-value", "checkpoint_every"),
        ({"resume": True}, "bad-value", "resume"),
        ({"checkpoint": Path("")}, "bad-value", "checkpoint"),
        ({"checkpoint": Path("run"), "save": Path("run")}, "same-file", "save"),
        ({"checkpoint": Path("model.pt/run"), "save": Path("model.pt")}, "same-file", "save"),
        ({"provider": "fusde"}, "no-such-provider", "provider"),
        ({"data": "movilens"}, "no-such-data", "data"),
        ({"data": "bfi", "size": (3, 4)}, "bad-size", "size"),
    ],
)
def test_arguments_that_do_not_fit(arguments, code, argument):
    with pytest.raises(UsageError) as raised:
        run_training(**arguments)
    assert (raised.value.code, raised.value.argument) == (code, argument)


def test_the_notebook_is_trained_and_logged_as_in_the_notebook():
    assert (TrainOptions().updates, TrainOptions().log_every) == (28001, 1000)
    assert (TrainOptions(data="bfi").updates, TrainOptions(data="bfi").log_every) == (500, 10)
    assert (TrainOptions().update_rule, TrainOptions().lines_of_patience) == ("sgd", None)
    assert (TrainOptions(data="bfi").update_rule, TrainOptions(data="bfi").lines_of_patience) == ("preconditioned", 5)
    given = TrainOptions(data="bfi", epochs=7, every=3, optimizer="adam", patience=2)
    assert (given.updates, given.log_every) == (7, 3)
    assert (given.update_rule, given.lines_of_patience) == ("adam", 2)


def test_checkpoints_come_every_ten_lines_of_the_log():
    assert TrainOptions().checkpoint_interval == 10_000
    assert TrainOptions(data="bfi", every=3).checkpoint_interval == 30
    assert TrainOptions(checkpoint=Path("run"), checkpoint_every=7).checkpoint_interval == 7
