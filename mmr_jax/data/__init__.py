"""Data: random-access sources of multimodal records, and the pipelines that batch them. Only `validate` runs jax."""
