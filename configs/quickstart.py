"""The embedded default: audio, video and captions of a synthetic world; every method; one seed."""

from mmr_jax import config as c


def get_config():
    config = c.base(
        "synthetic",
        {
            "audio": c.spectrogram(samples=10240, frames=32, mels=64, hop_ms=20.0, patch_size=(8, 16)),
            "video": c.video(frames=4, height=32, width=32, patch_size=(4, 8, 8)),
            "text": c.text(length=12, vocab_size=512, tokenizer="word"),
        },
    )
    config.name = "quickstart"
    return config
