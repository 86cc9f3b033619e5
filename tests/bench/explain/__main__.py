"""``python tests/bench/explain``: which questions to measure, and with which alibi."""

import argparse
import os
import sys
import warnings

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
warnings.simplefilter("ignore")

import by_engine  # noqa: E402
import by_load  # noqa: E402
import by_trees  # noqa: E402
import exactly  # noqa: E402
import interval_coverage  # noqa: E402
import of_text  # noqa: E402
import sampling  # noqa: E402

QUESTIONS = {
    "exact": exactly.measure,
    "sampled": sampling.measure,
    "coverage": interval_coverage.measure,
    "trees": by_trees.measure,
    "text": of_text.measure,
    "serving": by_load.measure,
    "engines": by_engine.measure,
}


def make_small() -> None:
    """The least of each question that still goes all its ways."""
    exactly.ROWS, exactly.BACKGROUND, exactly.SHAP_ROWS, exactly.LONE_BATCH = 4, 5, 1, 64
    sampling.ROWS, sampling.SEEDS, sampling.CASES = 1, 1, (("forest", 13), ("network", 13))
    interval_coverage.ROWS, interval_coverage.CASES = 2, (("network", 8, (128,), 2), ("forest", 16, (128,), 2))
    interval_coverage.PLAYERS, interval_coverage.REPEATS, interval_coverage.LOCAL_SEEDS = (8, 13), 2, 8
    by_trees.BACKGROUND, by_trees.EVALUATIONS = 10, 128
    of_text.TEXTS = 1
    by_engine.make_small()
    by_load.RATE, by_load.SECONDS, by_load.WARM, by_load.ROUNDS, by_load.ROWS = 20.0, 1.0, 0.5, 2, 500


def main() -> int:
    parser = argparse.ArgumentParser(description="Explanations beside shap, lime and alibi.")
    parser.add_argument("questions", nargs="*", help=f"of {', '.join(QUESTIONS)}; all by default")
    parser.add_argument("--alibi-python", default="", help="interpreter of an environment that has alibi 0.9.6")
    parser.add_argument(
        "--at",
        action="append",
        default=[],
        metavar="ENGINE=URL",
        help="of engines: a service of the sample that stands already, by a port-forward to a cluster, say",
    )
    parser.add_argument(
        "--smoke", action="store_true", help="seconds each, to see that it runs: its numbers mean nothing"
    )
    given = parser.parse_args()
    if given.smoke:
        make_small()
    if unknown := [name for name in given.questions if name not in QUESTIONS]:
        parser.error(f"expected {', '.join(QUESTIONS)}, found {unknown[0]}")
    by_engine.AT.update(at.split("=", 1) for at in given.at)
    if unknown := [engine for engine in by_engine.AT if engine not in by_engine.ENGINES]:
        parser.error(f"--at: expected {' or '.join(by_engine.ENGINES)}=URL, found {unknown[0]}")
    for name in given.questions or QUESTIONS:
        QUESTIONS[name](given.alibi_python)
    return 0


if __name__ == "__main__":
    sys.exit(main())
