"""A look at what pretraining learned, before any task: retrieval across modalities, and pictures of reconstructions."""
