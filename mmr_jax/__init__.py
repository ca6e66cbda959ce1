"""mmr_jax: multimodal models that keep working when the modalities change."""

__version__ = "0.1.0"
