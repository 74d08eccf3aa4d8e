"""Compares dropout schemes over rates, other settings and seeds: an ablation.

  python -m scripts.ablate --dropout=none,bernoulli,gaussian --rate=0.1,0.3,0.5 --seeds=10 \\
      --dataset=digits --model='mlp(widths=(256,))' --workdir=runs/first

trains each scheme at each rate with each seed, cells that differ in numbers alone side by side in
one compiled program, and says which scheme is better at the rate that validation chose, by how
much, and how surely, all of the one set of test examples.
--grid='batch_size=32,128;learning_rate=1e-3,3e-3' sweeps other flags of training; those not swept
are given as to the experiment. A list is split at commas outside of brackets and quotes. The grid
is printed before it starts (--only=plan: that alone), with its cost, and with the number of seeds
that it takes to find a difference: 2**(1 - seeds) times the number of comparisons must be at most
0.05. Without --seeds there are as many as that.

Writes to --workdir: report.html, table.md, cells.csv, figures/, ablation.json and a folder for each
cell. What is there is not run again: the same command continues what was stopped, and a larger
grid adds to it. Files hold their sha256: a cell that is damaged runs again, and that is said. Runs
of one seed have the same initial weights and batches in all schemes; results agree with those of
single runs to rounding, with --exact to the bit.

The report names the versions, commits and devices that the cells' own records name, and warns where
they are mixed. --only=tables makes it again, on whatever machine, with the verdicts on added seeds.

--stop=decided goes on after that: it adds seeds, which had no part in choosing settings, until each
comparison is decided or --max_seeds were added, and errs no more often than a test at 5 %.

Several machines with one folder: --shard=0/4 to --shard=3/4, each of which takes every fourth cell;
the last to end writes the tables.

On a Ray cluster (pip install '.[ray]'): --engine=ray trains cells that are side by side as one
task, on the cluster of RAY_ADDRESS, or one that runs on this machine, or else one that it starts
here. A task takes one GPU where there are GPUs, or else as many CPUs as JAX has threads here: on
one machine, NPROC=1 trains as many groups at a time as it has CPUs. A task whose worker dies is
trained again. Workers read the data in --data_dir, or where else this command finds it; results are
written here. They are those of --engine=local, to the bit on CPUs of one kind.

Exit status: 0, 1 if cells failed or diverged, 2 if it could not start, or a file could not be read
or written, 130 or 143 if stopped by SIGINT or SIGTERM. What was finished is kept.
"""

from experiments import program

if __name__ == "__main__":  # before what takes time is imported
    program.begin("ablate")

import os
import re
import sys
import time
from pathlib import Path

from absl import flags, logging

from dropjax.compare import fewest
from dropjax.train.checkpoint import CheckpointError
from experiments import arguments
from experiments import flags as training
from experiments.ablation import ray_engine
from experiments.ablation.ablate import Options, ablate
from experiments.ablation.grid import Grid, parse_grid, values
from experiments.experiment import find, names
from experiments.setup import LaunchError, launching, use_compilation_cache

# The others have lists of values here, with flags of their own.
FIXED = [name for name, flag in training.DECLARED.items() if flag.sweep in ("", "--grid")]
training.define(find("mnist"), names=FIXED)

EXPERIMENT = flags.DEFINE_string("experiment", "mnist", f"Which one: {', '.join(names())}.")
DROPOUT = flags.DEFINE_string(
    "dropout",
    "none,bernoulli",
    "The schemes, as the experiment takes them, with commas between. help: lists their arguments.",
)
RATE = flags.DEFINE_string(
    "rate", None, "Rates, with commas between, for each scheme that has one and names none."
)
GRID = flags.DEFINE_string(
    "grid", None, "Other flags that are swept: 'batch_size=32,128;learning_rate=1e-3,3e-3'."
)
SEEDS = flags.DEFINE_integer(
    "seeds",
    None,
    "Runs of each setting, with seeds 0, 1, ... Default: the fewest that can show a difference, 6 "
    "of two schemes, 7 of 3 or 4, 8 of 5 to 7.",
    1,
    10_000,
)
BASELINE = flags.DEFINE_string(
    "baseline", None, "The scheme that others are compared with. Default: none, or else the first."
)
EXACT = flags.DEFINE_bool(
    "exact", False, "Run each cell by itself, to the bits of the experiment's own run."
)
LANES = flags.DEFINE_integer(
    "lanes", None, "At most so many cells side by side. Default: what memory holds.", lower_bound=1
)
SHARD = flags.DEFINE_string(
    "shard", None, "i/n: run every n-th cell from the i-th on, i from 0 to n - 1."
)
ENGINE = flags.DEFINE_enum(
    "engine", "local", ("local", "ray"), "Train on this machine, or as tasks of a Ray cluster."
)
STOP = flags.DEFINE_enum(
    "stop",
    None,
    ("decided",),
    "decided: after choosing settings on --seeds seeds, add others until each comparison with the "
    "baseline is decided, by a test that may be looked at after every seed.",
)
MAX_SEEDS = flags.DEFINE_integer(
    "max_seeds", None, "Seeds that --stop=decided adds at most. Default: 50.", lower_bound=1
)
ONLY = flags.DEFINE_enum(
    "only", None, ("plan", "tables"), "plan: print the grid and stop. tables: run nothing more."
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "The ablation's folder. Default: runs/ablation- and the time."
)


@program.guarded("ablate")
def main(argv: list[str]) -> int:
    """Runs the ablation that the flags describe."""
    if len(argv) > 1:
        program.complain(f"ablate: unexpected arguments: {' '.join(argv[1:])}")
        return 2
    if text := arguments.help_on(DROPOUT.value, flags.FLAGS.model):
        return program.deliver("ablate", text)
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)
    if ENGINE.value == "ray":
        ray_engine.leave_memory()
    use_compilation_cache()
    try:
        schemes = values(DROPOUT.value, "dropout")
        with launching():
            experiment = find(EXPERIMENT.value)
        grid = Grid(
            experiment,
            schemes,
            parse_grid(RATE.value, GRID.value),
            tuple(range(SEEDS.value or fewest(0.95, comparisons=len(schemes) - 1))),
            training.given(names=FIXED),
        )
        default = "none" if "none" in schemes else schemes[0]
        options = Options(
            BASELINE.value or default,
            exact=EXACT.value,
            lanes=LANES.value,
            shard=_shard(SHARD.value),
            stop=STOP.value,
            max_seeds=50 if MAX_SEEDS.value is None else MAX_SEEDS.value,
            engine=ENGINE.value,
            only=ONLY.value,
        )
        if MAX_SEEDS.value is not None and not STOP.value:
            raise LaunchError("--max_seeds would do nothing without --stop=decided")
        if WORKDIR.value == "":
            raise LaunchError("--workdir is empty; leave it out or name a folder")
        stamp = time.strftime("%Y%m%d-%H%M%S")
        if WORKDIR.value is None and (options.shard or options.only == "tables"):
            raise LaunchError("name the folder by --workdir")
        workdir = os.path.expanduser(WORKDIR.value or f"runs/ablation-{stamp}")
        return ablate(grid, Path(workdir), options)
    except (LaunchError, CheckpointError) as error:
        program.complain(f"ablate: {error}")
        return 2


def _parsed(argv: list[str]) -> list[str]:
    """The arguments that are no flags. absl would exit with status 1, which has a meaning here."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        program.complain(f"ablate: {error}")
        sys.exit(2)


def _shard(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not int(match[1]) < int(match[2]):
        raise LaunchError(f"shard={text!r} is not i/n with i from 0 to n - 1")
    return int(match[1]), int(match[2])


if __name__ == "__main__":
    program.launch("ablate", main, flags_parser=_parsed)
