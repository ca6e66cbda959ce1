"""Memory of a contrastive loss with its gradient, per device of a TPU pod that is not there (it needs libtpu).

python benchmarks/contrast_memory.py [--examples=32768] [--channels=512] [--modalities=2] [--topology=v5e:8x8]

Compiles value and gradient of each loss, gone through in each of the three ways, on embeddings that are split over the
pod, and prints the bytes of temporary memory per device as the compiler reports them.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile

import tpu_cycles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=32768, help="of the global batch")
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--modalities", type=int, default=2)
    parser.add_argument("--topology", default="v5e:8x8")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return compare(args)
    if importlib.util.find_spec("libtpu") is None:
        sys.exit("libtpu is missing: pip install libtpu, best in an environment of its own, and run this with it")
    with tempfile.TemporaryDirectory() as folder:
        environment = {**tpu_cycles.environment(folder), "LIBTPU_INIT_ARGS": os.environ.get("LIBTPU_INIT_ARGS", "")}
        sys.exit(subprocess.run([sys.executable, __file__, *sys.argv[1:], "--child"], env=environment).returncode)


def compare(args) -> None:
    from jax.experimental import topologies

    from mmr_jax.objectives.contrastive import CONTRASTS, LOSSES
    from mmr_jax.train.sharding import make_mesh

    devices = topologies.get_topology_desc(platform="tpu", topology_name=args.topology).devices
    mesh = make_mesh({"data": -1, "fsdp": 1, "tensor": 1}, devices)
    print(f"{args.modalities} x [{args.examples}, {args.channels}] over {len(devices)} devices of {args.topology}")
    print(f"{'loss':10} {'embeddings':10} {'contrast':8} {'temporary bytes per device':>26} {'of plain':>8}")
    for loss in LOSSES:
        for dtype in ("float32", "bfloat16"):
            whole = 0
            for contrast in CONTRASTS:
                used = temporary(args, mesh, loss, dtype, contrast)
                whole = whole or used
                print(f"{loss:10} {dtype:10} {contrast:8} {used:26,} {used / whole:8.4f}", flush=True)


def temporary(args, mesh, loss: str, dtype: str, contrast: str) -> int:
    """Bytes of temporary memory per device."""
    import jax
    from jax.sharding import NamedSharding

    from mmr_jax.objectives.contrastive import pairwise_loss
    from mmr_jax.train.sharding import BATCH

    def value(z, present, temperature, bias):
        return pairwise_loss(loss, z, present, temperature, "both", bias, contrast)[0]

    def step(*given):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return jax.value_and_grad(value, argnums=(0, 2, 3))(*given)

    def shape(size, kind, spec):
        return jax.ShapeDtypeStruct(size, kind, sharding=NamedSharding(mesh, spec))

    names = "abcdefgh"[: args.modalities]
    z = {m: shape((args.examples, args.channels), dtype, BATCH) for m in names}
    present = {m: shape((args.examples,), "bool", BATCH) for m in names}
    number = shape((), "float32", jax.P())
    compiled = jax.jit(step).trace(z, present, number, number).lower().compile()
    return compiled.memory_analysis().temp_size_in_bytes


if __name__ == "__main__":
    main()
