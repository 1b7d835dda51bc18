"""A provider by `torch.compile`: the closed form of the gradients, fused by Inductor."""

import torch


def closed_form(P, Q, bu, bi, mu, ratings, mask, reg):
    observed = ~torch.isnan(ratings) if mask is None else mask != 0
    E = torch.where(observed, P @ Q.T + bu + bi.T + mu - ratings.to(P.dtype), 0)
    rows, columns = E.sum(dim=1, keepdim=True), E.sum(dim=0).unsqueeze(1)
    loss = (E * E).sum(dtype=torch.float64)
    for parameter in (P, Q, bu, bi):
        loss = loss + reg * (parameter * parameter).sum(dtype=torch.float64)
    return loss, (
        2 * (E @ Q + reg * P),
        2 * (E.T @ P + reg * Q),
        2 * (rows + reg * bu),
        2 * (columns + reg * bi),
        2 * rows.sum(dim=0),
    )


step = torch.compile(closed_form, dynamic=False)
