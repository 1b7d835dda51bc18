"""Encoded ratings as a step and files take them: counted, copied, saved, loaded."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import textwrap
from multiprocessing.reduction import ForkingPickler
from zipfile import ZipFile

import pytest
import torch

from kernels import EncodedRatings, encode_ratings, mf_loss, mf_loss_and_grads, mf_sse
from tests.problems import draw_inputs


def test_shape_observed_ratings_and_bytes():
    ratings = torch.randint(1, 11, (60, 50), dtype=torch.uint8)
    mask = torch.rand(60, 50) < 0.5
    for encoding, nbytes in (
        ("uint8-code", 60 * 50 + 2 * 8),
        ("uint8-bits", 60 * 50 + 60 * 2 * 4),
        ("float32-nan", 12000),
    ):
        encoded = encode_ratings(ratings, mask, encoding, layout="dense")
        assert encoded.shape == (60, 50)
        assert encoded.observed == mask.sum()
        assert encoded.nbytes == nbytes
    mask[:, 20:], mask[10:] = False, False
    assert (
        encode_ratings(ratings, mask, "uint8-code", "dense").nbytes == 60 * 50 + 2 * 8
    )  # a single tile, which is occupied
    assert encode_ratings(torch.empty(0, 5)).observed == 0


def test_observed_ratings_are_counted_some_rows_at_a_time(monkeypatch):
    monkeypatch.setattr("kernels.decoding.CHUNK_ELEMENTS", 7 * 50)
    mask = torch.rand(60, 50) < 0.5
    for encoding in ("uint8-code", "uint8-bits", "bfloat16-nan"):
        assert encode_ratings(torch.ones(60, 50, dtype=torch.uint8), mask, encoding).observed == mask.sum()


@pytest.mark.parametrize(
    "encoding", ["uint8-code", *(pytest.param(name, marks=pytest.mark.slow) for name in ("uint8-bits", "float16-nan"))]
)
def test_saved_ratings_are_loaded_by_weights_alone(tmp_path, encoding):
    ratings, mask = torch.randint(1, 11, (600, 500), dtype=torch.uint8), torch.rand(600, 500) < 0.5
    mask[:, 64:] = False
    encoded = encode_ratings(ratings, mask, encoding, "dense")
    assert encoded.occupied is not None
    encoded.save(tmp_path / "ratings.pt")
    torch.save({"ratings": encoded, "epoch": 3}, tmp_path / "checkpoint.pt")
    code = """
        import sys, torch, kernels
        whole = kernels.EncodedRatings.load(sys.argv[1])
        part = torch.load(sys.argv[2], weights_only=True)["ratings"]
        assert type(whole) is type(part) is kernels.EncodedRatings
        print(whole.encoding, whole.observed, part.observed)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), tmp_path / "ratings.pt", tmp_path / "checkpoint.pt"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert printed.split() == [encoding, *[str(int(mask.sum()))] * 2]
    assert_equal_parts(EncodedRatings.load(tmp_path / "ratings.pt"), encoded)


def test_files_are_read_in_which_the_class_has_its_former_place(tmp_path):
    encoded = encode_ratings(torch.randint(1, 11, (60, 50), dtype=torch.uint8))
    encoded.save(tmp_path / "new.pt")
    with ZipFile(tmp_path / "new.pt") as new, ZipFile(tmp_path / "old.pt", "w") as old:
        for name in new.namelist():
            content = new.read(name)
            assert name.endswith("data.pkl") == (b"kernels.encoded\n" in content)
            old.writestr(name, content.replace(b"kernels.encoded\n", b"kernels.encoding\n"))
    assert_equal_parts(EncodedRatings.load(tmp_path / "old.pt"), encoded)


@pytest.mark.parametrize("content", [b"", b"junk", b"userId,movieId,rating\n1,2,3\n", b"\0" * 100])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "ratings.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"path: expected a file written by EncodedRatings\.save"):
        EncodedRatings.load(path)
    with pytest.raises(FileNotFoundError):
        EncodedRatings.load(tmp_path / "missing.pt")


def through_a_file(encoded):
    sink = io.BytesIO()
    torch.save([encoded], sink)
    sink.seek(0)
    return torch.load(sink, weights_only=True)[0]


WAYS = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    **{
        f"pickle {protocol}": lambda encoded, protocol=protocol: pickle.loads(pickle.dumps(encoded, protocol))
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
    "multiprocessing": lambda encoded: pickle.loads(bytes(ForkingPickler.dumps(encoded))),
    "torch.save": through_a_file,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("items", [50, 70000])
@pytest.mark.parametrize("layout", ["dense", "sparse"])
def test_copies_are_whole(way, items, layout):
    """Sparse ratings of up to 65,536 items have uint16 columns, which PyTorch cannot pickle."""
    rows, columns = torch.tensor([0, 0, 1, 2]), torch.tensor([3, 49, 7, items - 1])
    ratings = torch.sparse_coo_tensor(torch.stack([rows, columns]), torch.tensor([4.0, 0.0, 1.5, 3.0]), (3, items))
    encoded = encode_ratings(ratings, layout=layout)
    if layout == "sparse":
        assert encoded.columns.dtype == (torch.uint16 if items == 50 else torch.int32)
    copied = WAYS[way](encoded)
    assert type(copied) is EncodedRatings
    assert_equal_parts(copied, encoded)
    parameters = torch.randn(3, 2), torch.randn(items, 2), torch.randn(3), torch.randn(items), torch.randn(())
    assert mf_sse(*parameters, copied) == mf_sse(*parameters, encoded)


def assert_equal_parts(loaded, encoded):
    for part, expected in zip(loaded, encoded, strict=True):
        if isinstance(expected, torch.Tensor):
            torch.testing.assert_close(part, expected, rtol=0, atol=0, equal_nan=True)
        else:
            assert part == expected


@pytest.mark.parametrize("content", [b"", b"no archive", {"a": torch.ones(2)}, torch.ones(2, 3)])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=r"^path: expected a file .*other\.pt"):
        EncodedRatings.load(path)
    with pytest.raises(FileNotFoundError):
        EncodedRatings.load(tmp_path / "missing.pt")


def test_to_moves_every_tensor():
    ratings, mask = torch.randint(1, 11, (200, 300)).float(), torch.rand(200, 300) < 0.5
    mask[:, 64:] = False
    encoded = encode_ratings(ratings, mask, layout="dense")
    moved = encoded.to("meta")
    assert isinstance(moved, EncodedRatings)
    assert [part.device.type for part in moved if isinstance(part, torch.Tensor)] == ["meta"] * 3
    assert (moved.encoding, moved.shape, moved.nbytes) == (encoded.encoding, encoded.shape, encoded.nbytes)
    assert_equal_parts(encoded.to("cpu"), encoded)


def test_encoded_ratings_are_shown_in_a_line() -> None:
    ratings = torch.tensor([[1.0, float("nan")], [2.0, 4.0]])
    assert repr(encode_ratings(ratings, layout="sparse")) == (
        "EncodedRatings(2 users x 2 items, sparse, uint8-code, 49 bytes on cpu)"
    )


@pytest.mark.parametrize("function", [mf_loss, mf_loss_and_grads, mf_sse])
def test_a_second_mask_is_refused(function):
    *parameters, ratings, mask, _ = draw_inputs(6, 5, 3)
    with pytest.raises(ValueError, match=r"^mask: expected None, since encoded ratings carry their mask"):
        function(*parameters, encode_ratings(ratings, mask), mask)


def test_encoded_ratings_of_another_shape_are_refused():
    *parameters, _, _, _ = draw_inputs(6, 5, 3)
    with pytest.raises(ValueError, match=r"^ratings: expected shape \(6, 5\), got \(5, 6\)"):
        mf_loss(*parameters, encode_ratings(torch.rand(5, 6)))
