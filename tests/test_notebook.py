"""Replacing the loss line of the notebook by `mf_loss` gives the same training run."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels import mf_loss
from reference.autograd import notebook_loss
from tests.test_examples import ROOT, executed, outputs, printed

EXAMPLE = ROOT / "examples" / "notebook.ipynb"
SAME = 1e-4  # relative difference of two losses of the same training run
LOSS_RANGES = {0: (1.6e6, 2.4e6), 1000: (89_000, 93_000), 2000: (80_500, 83_500)}  # a little wider than observed


@pytest.fixture(autouse=True)
def _one_thread():
    """Use one thread: in steps this short, threads cost more than they save on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Notebook:
    """The notebook's cells, with the function for its loss line left open."""

    def __init__(self, seed: int) -> None:
        torch.manual_seed(seed)
        self.ratings = torch.rand((200, 300), dtype=torch.double) * 5
        self.mask = (torch.rand((200, 300)) > 0.2).int()
        u, bu, bi = (torch.randn(shape, requires_grad=True) for shape in (1, (200, 1), (300, 1)))
        p, q = (torch.randn((rows, 30), requires_grad=True) for rows in (200, 300))
        self.parameters = [p, q, bu, bi, u]

    def train(self, loss_line: Callable[..., Tensor], epochs: int, every: int) -> dict[int, float]:
        losses = {}
        for epoch in range(epochs):
            loss = loss_line(*self.parameters, self.ratings, self.mask, 0.1)
            if epoch % every == 0:
                losses[epoch] = loss.item()
            loss.backward()
            with torch.no_grad():
                for parameter in self.parameters:
                    parameter -= 1e-5 * parameter.grad
                    parameter.grad.zero_()
        return losses

    def predictions(self) -> Tensor:
        p, q, bu, bi, u = (parameter.detach() for parameter in self.parameters)
        return torch.mm(p, q.t()) + bu + bi.t() + u

    def evaluate(self) -> float:
        missing = 1 - self.mask
        return float(torch.sum((self.predictions() * missing - self.ratings * missing).pow(2)))


@pytest.mark.parametrize("seed", [2, 3])
def test_the_loss_line_can_be_replaced(seed):
    theirs, ours = Notebook(seed), Notebook(seed)
    expected = theirs.train(notebook_loss, epochs=301, every=50)
    found = ours.train(mf_loss, epochs=301, every=50)
    assert list(found) == [0, 50, 100, 150, 200, 250, 300]
    assert found == pytest.approx(expected, rel=SAME)
    assert LOSS_RANGES[0][0] < found[0] < LOSS_RANGES[0][1]
    assert found[300] < found[0] / 5
    assert ours.evaluate() == pytest.approx(theirs.evaluate(), rel=SAME)


@pytest.mark.slow
def test_the_example_prints_the_notebooks_log(tmp_path, monkeypatch):
    notebook = Notebook(seed=1)
    expected = notebook.train(notebook_loss, epochs=2001, every=1000)
    book = executed(EXAMPLE, tmp_path, monkeypatch, num_epochs="2001")
    output = printed(book)

    found = {int(epoch): float(loss) for epoch, loss in re.findall(r"^epoch (\d+) loss (\S+)$", output, re.MULTILINE)}
    assert found == pytest.approx(expected, rel=SAME)
    for epoch, (low, high) in LOSS_RANGES.items():
        assert low < found[epoch] < high
    error = re.search(r"^held-out squared error (\S+)$", output, re.MULTILINE)
    assert float(error[1]) == pytest.approx(notebook.evaluate(), rel=SAME)

    predicted, given = (
        [float(number) for number in re.findall(r"-?\d+\.\d+", text)]
        for text in outputs(book, "text/plain")
        if text.startswith("tensor")
    )
    missing = 1 - notebook.mask
    corner = [(i, j) for i in (0, 1, 2, -3, -2, -1) for j in (0, 1, 2, -3, -2, -1)]  # what PyTorch prints
    assert given == pytest.approx([float((notebook.ratings * missing)[place]) for place in corner], abs=1e-4)
    assert predicted == pytest.approx([float((notebook.predictions() * missing)[place]) for place in corner], abs=1e-2)
    assert re.search(r"fused is|Undecided: fused", outputs(book, "text/html")[0])  # on a busy machine
    assert len(outputs(book, "image/png")) == 1
