"""Completions and conversations as the OpenAI protocol shapes them."""
