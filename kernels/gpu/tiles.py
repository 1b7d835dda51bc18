"""Tiles that fit a target's registers and shared memory: users x items x warps, for each width of the factors.

`/c`: the factors in chunks of c columns; `a|b|c|d`: a where atomics add to dB, b where dB has a slice for each group of
programs (deterministic, or no atomics), c where ratings are loaded one by one, d where the mask is packed in bits;
without b or d it is a or b, without c half of that; `-`: nothing fits. Two things said to NVIDIA's assembler: `@n`,
that registers need not suffice for more than n programs a multiprocessor, for more of which it spills some; `~`, not
to spend registers on speed.

Of the tiles that fit the one with the least modelled time; `mfbench inspect --all` compiles and checks every one.
"""

WIDTHS = ("16", "32", "64", "64s", "128", "128s", "wide")  # columns; s: bias gradients by sums; wide: above WIDEST
WIDEST = 128  # rank
INTERPRETED = "64x64x4 64x64x4 64x64x4 64x64x4 64x64x4 64x64x4 64x64x4/64"
TILES: dict[str, dict[str, str]] = {
    "sm_80": {
        "ieee": "64x32x4 64x32x4 32x32x4 32x32x4||32x16x4~ 32x32x4 32x32x4|32x16x4|16x16x4@4 64x32x4/32~|64x32x8/32~",
        "tf32x3": "64x64x4|64x32x4 64x32x4||64x16x4~ 64x32x4|32x32x4 64x32x4|32x32x4/64~ "
        "32x32x4|32x16x4 32x32x4|32x16x8 32x32x4/64|32x32x4/64~",
        "bf16x3": "64x64x4||64x32x8 64x64x4|32x32x4@1 64x32x4||64x16x4~ 64x32x4|64x16x4 "
        "64x32x8|32x32x4 64x32x8|32x32x4 64x32x4/64~|64x32x4/32~",
        "tf32": "64x64x4 64x64x4 64x64x4|64x32x4@1||64x32x4@1 64x32x4|64x32x8 "
        "64x32x4|64x32x8 64x32x8|64x16x4~ 128x64x8/32|64x64x8/32",
        "float64": "32x32x4 32x32x4 32x32x4 32x32x4|32x32x4/64 32x16x4 32x16x4 32x32x4/32",
    },
    "sm_86": {
        "ieee": "32x32x4|32x32x4~ 32x32x4 32x16x4|32x16x4@5 32x16x4|32x16x4@4 "
        "32x32x4 32x16x4||16x16x4@4 64x32x4/32|64x32x8/64",
        "tf32x3": "64x32x4|64x32x4~ 64x32x4 32x32x4|32x32x4@1 32x16x4 32x16x4 32x16x8 64x32x4/64~|32x32x4/32",
        "bf16x3": "64x32x4 64x32x4|32x32x4@1 64x32x4|64x16x4 64x16x4 32x32x4 32x32x4|32x16x4 64x64x8/32|64x32x4/64",
        "tf32": "64x64x4|64x64x4@1 64x64x4 64x32x4|64x32x4@1 64x16x4|64x16x4@1 64x16x4 64x16x4 128x64x8/32",
        "float64": "32x32x4 32x32x4 16x16x4|16x16x4@4|16x16x4@3 16x16x4|16x16x4@4 16x16x8 16x16x8|16x16x8@2 32x32x8/32",
    },
    "sm_90": {
        "ieee": "64x32x4 64x32x4|32x32x4 32x16x4|32x16x4@3 32x32x4||32x16x4/32@3 "
        "32x32x4 32x32x4||32x16x4/32 64x32x4/32||32x32x4/32@3",
        "tf32x3": "64x32x4 64x32x4 64x16x4 64x16x4|32x16x4|16x16x4@3 32x16x4 32x16x8 64x64x8/64|64x32x8/64",
        "bf16x3": "64x64x4 64x64x4 64x64x4|64x32x4 64x32x4 64x32x8 64x32x8|32x16x4 128x64x8/32||64x64x8/64",
        "tf32": "64x64x4 64x64x4 64x64x4 64x64x4 64x32x4 64x32x4 64x64x8/64",
        "float64": "32x32x4 32x32x4 32x32x4 32x32x4|32x32x4@1 32x16x4 16x16x4|16x16x8 32x32x4/32",
    },
    "sm_100": {
        "ieee": "32x32x4 64x32x4|32x32x4|32x16x4@4 32x16x4 32x32x4|32x16x4@3 "
        "32x16x4 32x16x4||16x16x4@4 64x32x4/32||32x32x4/32@3",
        "tf32x3": "64x32x4 64x32x4 64x16x4 64x16x4 32x16x4 32x16x8 32x32x4/32|32x32x4/64",
        "bf16x3": "64x64x4 64x64x4 64x32x4 64x32x4||64x16x4~ 64x16x4 64x16x4 64x64x8/64||64x32x8/32",
        "tf32": "64x64x4 64x64x4 64x64x4|64x64x8 64x32x4 64x32x4 64x16x4 64x64x8/64|64x32x8/64",
        "float64": "32x32x4 32x32x4 32x32x4 32x32x4|32x32x4@1 32x16x4 16x16x4 32x32x4/32@1|32x32x4/32",
    },
    "sm_120": {
        "ieee": "32x32x4 32x16x4|32x16x4@4 32x16x4|32x16x4@4 32x16x4|32x16x4@3 "
        "32x32x4 32x16x4||16x16x4@4 64x32x4/32||32x32x4/32@3",
        "tf32x3": "64x32x4|64x32x4@2 64x16x4||32x16x4@3 64x16x4|32x32x4~ 32x16x4|32x16x4@1 32x16x4 32x16x8 32x32x4/64",
        "bf16x3": "64x32x4 64x32x4|32x32x4 64x16x4 64x16x4 32x16x4 32x16x4 64x32x4/64|64x32x4/32",
        "tf32": "64x64x4 64x64x4 64x32x4 64x16x4 64x16x4 64x16x4 64x64x8/64",
    },
    "gfx942": {
        "ieee": "64x64x4 64x64x4 64x32x4 64x32x4 64x32x4 64x32x4 128x64x8/32",
        "bf16x3": "64x64x4 64x64x4 64x32x4 64x32x4 64x32x4 64x32x4 64x64x4/64",
        "tf32": "64x64x4 64x64x4 64x32x4 64x32x4 64x32x4 64x32x4 64x64x4/64",
    },
    "gfx950": {
        "ieee": "64x64x4 64x64x4 64x32x4 64x32x4 64x32x4 64x32x4 128x64x8/32",
        "bf16x3": "64x64x4 64x64x4 64x32x4 64x32x4 64x32x4 64x32x4 64x64x4/64",
    },
    "gfx90a": {
        "ieee": "64x64x4 64x64x4 64x32x4 64x32x4 128x64x8/32 128x64x8/32 128x64x8/32",
        "bf16x3": "64x64x4 64x64x4 64x32x4 64x32x4 64x64x4/64 64x64x4/64 64x64x4/64",
    },
    "gfx1100": {
        "ieee": "32x32x8 32x32x8 32x32x4/16 32x32x4/16 32x32x4/16 32x32x4/16 32x32x4/16",
        "bf16x3": "32x32x4 32x32x4 32x32x4/16 32x32x4/16 32x32x4/16 32x32x4/16 32x32x4/16",
    },
    "gfx1201": {
        "ieee": "32x32x8 32x32x8 32x32x4/16 32x32x4/16 32x32x4/16 32x32x4/16 32x32x4/16",
        "bf16x3": "32x32x4 32x32x4 32x32x4|32x16x4 32x16x4 32x32x4/32 32x32x4/32 32x32x4/32",
    },
}
