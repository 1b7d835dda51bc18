"""Sessions: threads of PyTorch and sources of providers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import mfbench
from mfbench.results import environment

pytest.importorskip("matplotlib", reason="needs the extra `report`")


def test_threads_are_those_that_were_set_and_stay_so(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "import torch\nfrom kernels import mf_loss_and_grads\n"
        "def on_one_thread(*arguments):\n"
        "    assert torch.get_num_threads() == 1\n"
        "    return mf_loss_and_grads(*arguments)\n"
    )
    name, before = f"{path}:on_one_thread", torch.get_num_threads()
    options = {"size": "30x40", "rank": 5, "data": "synthetic", "provider": name, "baseline": name, "budget": 0.1}
    try:
        torch.set_num_threads(3)
        asked = mfbench.run(threads=1, **options)
        assert torch.get_num_threads() == 3
        torch.set_num_threads(1)
        found = mfbench.run(**options)
    finally:
        torch.set_num_threads(before)
    for record in (*asked.records, *found.records):
        assert record.status == "ok", record.reason
        assert record.env["threads"] == 1


def test_a_record_names_the_file_as_it_was_loaded(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from kernels import mf_loss_and_grads\n"
        "def saved_meanwhile(*arguments):\n"
        "    open(__file__, 'a').write('# more')\n"
        "    return mf_loss_and_grads(*arguments)\n"
    )
    name, loaded = f"{path}:saved_meanwhile", environment.source(f"{path}:saved_meanwhile")
    found = mfbench.run(size="30x40", rank=5, data="synthetic", provider=name, baseline=name, budget=0.1)
    assert {record.env["source"] for record in found.records} == {loaded}
    assert environment.source(name) != loaded
