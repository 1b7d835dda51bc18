"""A provider with `torch.compile`: the closed form of the gradients, fused by Inductor."""

import torch


def closed_form(P, Q, bu, bi, mu, ratings, mask, reg):
    observed = ~torch.isnan(ratings) if mask is None else mask != 0
    E = torch.where(observed, P @ Q.T + bu.reshape(-1, 1) + bi.reshape(1, -1) + mu - ratings.to(P.dtype), 0)
    rows, columns = E.sum(dim=1), E.sum(dim=0)
    loss = (E * E).sum(dtype=torch.float64)
    for parameter in (P, Q, bu, bi):
        loss = loss + reg * (parameter * parameter).sum(dtype=torch.float64)
    return loss, (
        2 * (E @ Q + reg * P),
        2 * (E.T @ P + reg * Q),
        2 * (rows.reshape(bu.shape) + reg * bu),
        2 * (columns.reshape(bi.shape) + reg * bi),
        2 * rows.sum().reshape(mu.shape),
    )


step = torch.compile(closed_form, dynamic=False)
