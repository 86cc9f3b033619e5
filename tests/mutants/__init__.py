"""Tests are tested: small faults are planted in a copy of the sources, and a test must notice each (``tests/run
mutants``)."""
