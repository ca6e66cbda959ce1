"""One trainer for every objective: state, step, loop, optimiser, sharding, checkpoints."""
