"""Print the table of docs/scaling.md that the model yields for GPUs; nothing is measured.

python docs/scaling.py
"""

from mfbench.measure.scaling.model import H100_CLUSTER, Machine, Problem

GROUPS = (1, 2, 4, 8, 16, 64, 256, 1024)
# Dense: float32 and a mask of one byte. Sparse: a float32 rating and its column.
PROBLEMS = {
    "4096 × 4096, rank 32, dense": Problem(4096, 4096, 32, 0.8, False, 5),
    "131,072 × 65,536, rank 64, dense": Problem(131_072, 65_536, 64, 0.8, False, 5),
    "480,189 × 17,770, rank 64, 100 million ratings (as Netflix)":
        Problem(480_189, 17_770, 64, 100e6 / 480_189 / 17_770, True, 8),
    "100 million × 1 million, rank 64, 10 billion ratings": Problem(100_000_000, 1_000_000, 64, 1e-4, True, 8),
}  # fmt: skip


def milliseconds(seconds: float) -> str:
    """Return a time with three digits."""
    return f"{float(f'{1e3 * seconds:.3g}'):g}"


def table(machine: Machine) -> str:
    """Return the modelled strong scaling of every problem: milliseconds computing + communicating, efficiency."""
    lines = [
        "| problem | " + " | ".join(f"{count:,}" for count in GROUPS) + " | communication binds from |",
        "|---|" + "---|" * len(GROUPS) + "---|",
    ]
    for name, problem in PROBLEMS.items():
        computing = [machine.computing_s(problem, count) for count in GROUPS]
        communicating = [machine.communicating_s(problem, count) for count in GROUPS]
        alone = computing[0]
        cells = [
            f"{milliseconds(c)} + {milliseconds(w)}, {alone / (count * (c + w)):.0%}"
            for c, w, count in zip(computing, communicating, GROUPS, strict=True)
        ]
        binds = machine.binds_from(problem, GROUPS[-1])
        from_which = f"{binds:,} GPUs" if binds else f"beyond {GROUPS[-1]:,} GPUs"
        lines.append(f"| {name} | {' | '.join(cells)} | {from_which} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(H100_CLUSTER))
