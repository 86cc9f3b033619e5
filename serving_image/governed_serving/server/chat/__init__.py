"""OpenAI's completions of a foreign runtime under our rules: quota, masking, journal; streams pass through."""

from governed_serving.server.chat.gateway import ChatGateway

__all__ = ["ChatGateway"]
