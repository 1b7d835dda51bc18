"""Run passes of another library on triplets, in that library's own environment; `tests.studies.rivals` starts it.

python rival_process.py NAME FOLDER RANK THREADS: each line on stdin is answered by a JSON object on stdout. The folder
holds users.npy, items.npy (int64) and ratings.npy (float32), in the order of users, and shape.npy; for the RMSE also
held_out_users.npy, held_out_items.npy and held_out_ratings.npy.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

RATE, REG = 0.01, 0.02  # cornac's defaults


def cornac(folder, rank, threads):
    """Return one pass of stochastic gradient descent over all ratings, as `cornac.models.MF` makes 20."""
    from cornac.models.mf import backend_cpu

    users, items, ratings, (m, n) = triplets(folder)
    draw, mean = np.random.default_rng(0), float(ratings.mean())
    p, q = (draw.normal(0, 0.01, (rows, rank)).astype(np.float32) for rows in (m, n))  # as MF starts
    bu, bi = np.zeros(m, np.float32), np.zeros(n, np.float32)
    held_out = triplets(folder, "held_out_") if (folder / "held_out_users.npy").exists() else None

    def one_pass():
        start = time.perf_counter()
        backend_cpu.fit_sgd(users, items, ratings, p, q, bu, bi, RATE, REG, mean, 1, threads, True, False, False)
        seconds = time.perf_counter() - start
        if held_out is None:
            return {"seconds": seconds}
        u, i, truth, _ = held_out
        errors = mean + bu[u] + bi[i] + (p[u] * q[i]).sum(1) - truth
        return {"seconds": seconds, "rmse": float(np.sqrt(np.square(errors).mean()))}

    return one_pass


def implicit(folder, rank, threads):
    """Return one pass of alternating least squares for implicit feedback: users first, then items."""
    from implicit.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix

    users, items, ratings, shape = triplets(folder)
    matrix = csr_matrix((ratings, (users, items)), shape)
    model = AlternatingLeastSquares(rank, iterations=1, num_threads=threads, random_state=0, use_gpu=False)
    seconds = []

    def one_pass():
        model.fit(matrix, show_progress=False, callback=lambda iteration, passed, loss: seconds.append(passed))
        return {"seconds": seconds[-1]}

    return one_pass


def lenskit(folder, rank, threads):
    """Return one pass of alternating least squares on ratings less their biases, which are fixed beforehand."""
    import pandas
    from lenskit.als import BiasedMFScorer
    from lenskit.data import from_interactions_df
    from lenskit.training import TrainingOptions

    users, items, ratings, _ = triplets(folder)
    data = from_interactions_df(pandas.DataFrame({"user_id": users, "item_id": items, "rating": ratings}))
    trainer = BiasedMFScorer(features=rank).create_trainer(data, TrainingOptions(rng=0))

    def one_pass():
        start = time.perf_counter()
        trainer.train_epoch()
        return {"seconds": time.perf_counter() - start}

    return one_pass


def triplets(folder, prefix=""):
    """Return users, items and ratings of a folder, and its shape."""
    users, items, ratings = (np.load(folder / f"{prefix}{name}.npy") for name in ("users", "items", "ratings"))
    return users, items, ratings, tuple(np.load(folder / "shape.npy"))


if __name__ == "__main__":
    name, folder, rank, threads = sys.argv[1:]
    one_pass = {"cornac": cornac, "implicit": implicit, "lenskit": lenskit}[name](Path(folder), int(rank), int(threads))
    print("ready", flush=True)
    for _ in sys.stdin:
        print(json.dumps(one_pass()), flush=True)
