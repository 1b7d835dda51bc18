"""The notebook's flow, with its loss line replaced by `mf_loss`."""

import argparse

import torch

from kernels import mf_loss, mf_sse

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=28001)
parser.add_argument("--seed", type=int, default=1)
options = parser.parse_args()

# Data: 200 users, 300 items, a fifth of the ratings held out
torch.manual_seed(options.seed)
num_users, num_items, hidden_size = 200, 300, 30
rating_matrix = torch.rand((num_users, num_items), dtype=torch.double) * 5
mask_matrix = (torch.rand((num_users, num_items)) > 0.2).int()

u = torch.randn(1, requires_grad=True)
bu = torch.randn((num_users, 1), requires_grad=True)
bi = torch.randn((num_items, 1), requires_grad=True)
p = torch.randn((num_users, hidden_size), requires_grad=True)
q = torch.randn((num_items, hidden_size), requires_grad=True)

# Training: the notebook computes `r_predict` and from it the loss; here both are one line
learning_rate = 1e-5
for epoch in range(options.epochs):
    loss = mf_loss(p, q, bu, bi, u, rating_matrix, mask_matrix, reg=0.1)
    if epoch % 1000 == 0:
        print("epoch", epoch, "loss", loss.item())

    loss.backward()

    with torch.no_grad():
        for parameter in (u, bu, bi, p, q):
            parameter -= learning_rate * parameter.grad
            parameter.grad.zero_()

# Evaluation: the ratings that training did not see
held_out = 1 - mask_matrix
with torch.no_grad():
    error = mf_sse(p, q, bu, bi, u, rating_matrix, held_out)
    r_predict = torch.mm(p, q.t()) + bu + bi.t() + u
print("held-out squared error", error.item())
print("predictions at the held-out places")
print(r_predict * held_out)
print("ratings there")
print(rating_matrix * held_out)
