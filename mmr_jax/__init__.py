"""mmr_jax: multimodal models that keep working when the modalities change."""

__version__ = "0.1.0"


def __getattr__(name: str):
    """`mmr_jax.predict` is loaded when it is first used, so that importing the package stays cheap."""
    if name == "predict":
        from mmr_jax.prediction import predict

        return predict
    raise AttributeError(f"module 'mmr_jax' has no attribute {name!r}")
