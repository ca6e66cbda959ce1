"""What evaluating every modality subset costs, against evaluating the full one alone.

python benchmarks/subsets.py [--config=configs/digits.py] [--quick]
"""

import functools

import jax
import jax.numpy as jnp
from common import arguments, interleaved, machine, median_ms, seconds, study_of
from rich.console import Console
from rich.table import Table

from mmr_jax.data.pipeline import batch_at
from mmr_jax.flops import count_flops
from mmr_jax.robustness.evaluator import fused_embeddings
from mmr_jax.robustness.subsets import subset_masks


def scores(model, params, batch, masks):
    """Logits float32 [S, B, C] of every subset in masks bool [S, M]."""
    return model.bind(params).classify(fused_embeddings(model, params, batch, masks)[0])


def main() -> None:
    options = arguments(__doc__.splitlines()[0])
    repetitions = 5 if options.quick else 21
    study = study_of(options.config)
    model, size = study.model, study.config.study.eval_batch_size
    params, batch = model.init(jax.random.key(0)), jax.device_put(batch_at(study.dataset.splits["test"], size, 0, 0))
    groups = {"all": study.eval_subsets, "full": study.eval_subsets[-1:]}
    masks = {name: jnp.asarray(subset_masks(model.names, chosen)) for name, chosen in groups.items()}
    program = jax.jit(functools.partial(scores, model))
    runs = {name: functools.partial(program, params, batch, mask) for name, mask in masks.items()}
    interleaved(runs, 2)  # compile, and warm up
    times = interleaved({name: functools.partial(seconds, run) for name, run in runs.items()}, repetitions)
    flops = {name: count_flops(program, params, batch, mask).total for name, mask in masks.items()}
    table = Table("subsets", "ms per batch", "time ratio", "GFLOP per example", "FLOP ratio", title=study.config.name)
    for name, chosen in groups.items():
        time, work = median_ms(times[name]), flops[name]
        ratios = f"{time / median_ms(times['full']):.2f}", f"{work / flops['full']:.4f}"
        table.add_row(f"{name} ({len(chosen)})", f"{time:.1f}", ratios[0], f"{work / size / 1e9:.4f}", ratios[1])
    console = Console(highlight=False)
    console.print(table)
    console.print(f"medians of {repetitions} batches of {size}, interleaved; {machine()}", markup=False)


if __name__ == "__main__":
    main()
