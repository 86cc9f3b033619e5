"""Documented, seeded data generators: name → function of rows and seed."""

from collections.abc import Callable

from governed_serving.trainer.generators.credit import credit
from governed_serving.trainer.generators.reviews import reviews
from governed_serving.trainer.tables import Table

GENERATORS: dict[str, Callable[[int, int], Table]] = {"credit": credit, "reviews": reviews}

__all__ = ["GENERATORS", "credit", "reviews"]
