"""The full-size CAV-MAE pretraining step: samples/s and FLOP/s.

python benchmarks/cavmae_step.py [--batch=4] [--steps=3] [--dtype=float32] [--set=model.attention=xla ...]

Runs the training step on whatever jax finds, with memory that is kept between steps and mapped in large pages (see
KEEP_MEMORY; --plain_memory leaves it to the system). What it would cost on a TPU: `mmr plan`.
"""

import argparse
import ast
import os
import resource
import statistics
import sys
import time

# For glibc: a step's gigabytes of temporaries are otherwise given back and faulted in again, page by page, every step.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 35),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=0, help="examples (per chip); default 4, accelerator 64")
    parser.add_argument("--steps", type=int, default=3, help="steps that are timed, after one that is not")
    parser.add_argument("--dtype", help="float32 or bfloat16; default: both on a CPU, bfloat16 elsewhere")
    parser.add_argument("--set", action="append", default=[], help="field=value of the config")
    parser.add_argument("--plain_memory", action="store_true", help="do not set KEEP_MEMORY")
    return parser.parse_args()


def main() -> None:
    args = options()
    if not args.plain_memory and not KEEP_MEMORY.keys() <= os.environ.keys():  # read when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], {**KEEP_MEMORY, **os.environ})
    measure(args)


def overrides(args: argparse.Namespace) -> dict[str, object]:
    """Fields to set, as Python literals where they are such."""
    found = {}
    for field, _, value in (item.partition("=") for item in args.set):
        try:
            found[field] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[field] = value
    return found


def measure(args: argparse.Namespace) -> None:
    """Time steps on this machine, and print a line per dtype."""
    import jax
    from common import machine

    on_cpu = jax.default_backend() == "cpu"
    print(machine(), flush=True)
    for dtype in [args.dtype] if args.dtype else ["float32", "bfloat16"] if on_cpu else ["bfloat16"]:
        measure_dtype(dtype, args.batch or (4 if on_cpu else 64), args.steps, overrides(args))


def measure_dtype(dtype: str, batch_size: int, steps: int, fields: dict) -> None:
    import jax
    from cavmae_setup import USEFUL_FLOPS, Setup, full_size

    from mmr_jax.flops import count_flops
    from mmr_jax.train.sharding import make_mesh

    config = full_size(dtype, **fields)
    setup = Setup(config, make_mesh(config.mesh), batch_size)
    state, batch, key = setup.start(), setup.batch(), jax.random.key(0)
    flops = count_flops(setup.program.step, state, batch, key).total
    begun = time.perf_counter()
    step = setup.program.step.lower(state, batch, key).compile()
    print(f"{dtype}, batch {batch_size}: compiled in {time.perf_counter() - begun:.0f} s", flush=True)
    times, rates, product = [], [], matrix_product(dtype)
    for i in range(steps + 1):

        def advance():
            nonlocal state, metrics
            state, metrics = step(state, batch, key)
            return metrics

        metrics = None
        times.append(spent_on(advance))
        rates.append(spent_on(product.run))
        print(
            f"  step {i}: {times[-1][0]:.2f} s, {times[-1][1]:.2f} s of processor, loss {metrics['loss']:.4f}",
            flush=True,
        )
    memory = step.memory_analysis()
    needed = (memory.temp_size_in_bytes + memory.argument_size_in_bytes) / 2**30
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(
        f"{dtype}, batch {batch_size}, {flops / batch_size / 1e9:.1f} GFLOP per sample counted "
        f"({USEFUL_FLOPS / 1e9:.1f} useful), memory {needed:.1f} GiB by the compiler, {resident:.1f} GiB resident"
    )
    for name, which in (("by the clock", 0), ("per second of each processor", 1)):
        processors = os.cpu_count() if which else 1
        spent, other = (statistics.median(t[which] for t in found[1:]) / processors for found in (times, rates))
        rate, ceiling = flops / spent / 1e9, product.flops / other / 1e9
        print(
            f"  {name}: {batch_size / spent:.3f} samples/s, {rate:.0f} GFLOP/s, {100 * rate / ceiling:.0f} % of a "
            f"matrix product's {ceiling:.0f} GFLOP/s",
            flush=True,
        )


def spent_on(run) -> tuple[float, float]:
    """Seconds until what `run` returns is ready: by the clock, and of processor time, which other work on the machine
    lengthens less."""
    import jax

    begun = time.perf_counter(), time.process_time()
    jax.block_until_ready(run())
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


class matrix_product:  # noqa: N801
    """A large product, the machine's practical ceiling: `run()` and its `flops`."""

    def __init__(self, dtype: str):
        import jax
        import jax.numpy as jnp

        size = 4096 if jax.default_backend() == "cpu" else 16384
        x = jnp.ones((size, size), dtype)
        product = jax.jit(jnp.matmul).lower(x, x).compile()
        self.run, self.flops = lambda: product(x, x), 2 * size**3


if __name__ == "__main__":
    main()
