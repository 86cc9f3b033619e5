"""A pytest plugin: property tests stop at the first counterexample, with the same examples for every mutant."""

from hypothesis import Phase, settings

settings.register_profile(
    "mutants", phases=(Phase.explicit, Phase.generate), deadline=None, derandomize=True, database=None
)
settings.load_profile("mutants")
