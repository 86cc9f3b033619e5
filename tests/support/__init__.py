"""Test beds of Governed Models: real Kubernetes parts, the tools to break them, and the fixtures that hand them to
tests."""
