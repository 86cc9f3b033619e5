"""Explanations: pure maths on a black box, and the service that answers, records and samples them."""
