"""Flax modules: tokenizers, transformer stacks, the multimodal encoder, heads; pure functions at the edge."""
