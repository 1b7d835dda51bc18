"""Random tokens that tell an answer from bytes that a provider wrote into the worker's pipe."""

from __future__ import annotations

import secrets

TOKEN_BYTES = 16


def new_token() -> bytes:
    """Return a token for one request. Its answer must begin with it."""
    return secrets.token_bytes(TOKEN_BYTES)
