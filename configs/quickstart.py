"""The embedded default: three modalities of a synthetic world, every method, one seed.

    mmr run --config=configs/quickstart.py --workdir=runs/quickstart
"""

from mmr_jax import config as c


def get_config():
    config = c.base(
        "synthetic",
        {
            "audio": c.spectrogram(samples=10240, frames=32, mels=64, hop_ms=20.0, patch_size=(8, 16)),
            "video": c.video(frames=4, height=32, width=32, patch_size=(2, 8, 8)),
            "text": c.text(length=48),
        },
    )
    config.name = "quickstart"
    return config
