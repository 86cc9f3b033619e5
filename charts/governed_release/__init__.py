"""A release: images and chart by digest, signed, with SBOM and provenance."""
