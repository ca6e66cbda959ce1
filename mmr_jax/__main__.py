"""python -m mmr_jax = mmr."""

from mmr_jax.cli.main import main

if __name__ == "__main__":
    main()
