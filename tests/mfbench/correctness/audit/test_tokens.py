"""Tokens: of the length that messages begin with, and never the same twice."""

from __future__ import annotations

from mfbench.correctness.audit.tokens import TOKEN_BYTES, new_token


def test_tokens_are_long_and_differ() -> None:
    drawn = {new_token() for _ in range(1000)}
    assert len(drawn) == 1000
    assert {len(token) for token in drawn} == {TOKEN_BYTES}
    assert TOKEN_BYTES >= 16  # 128 bits
