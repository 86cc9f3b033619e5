"""Words of YAML and what kubectl makes of them: tests/apiserver/test_yaml.py asks it, the others lean on it."""

__all__ = ["MEANT"]

MEANT: dict[str, object] = {
    **dict.fromkeys(("y", "Y", "yes", "on", "On", "TRUE"), True),
    **dict.fromkeys(("n", "N", "No", "off", "false"), False),
    **dict.fromkeys(("~", "null", "NULL", ""), None),
    **dict.fromkeys(("1e3", "1E3", "1e+3", "1000", "1_000", "1000.0", "1000.", "0x3e8", "0b1111101000", "01750"), 1000),
    **{"08": 8, "0o17": 15, "-0b11": -3, "+12": 12, ".5": 0.5, "-.5": -0.5, "1_0.5": 10.5, "1e-7": 1e-7, "1e21": 1e21},
    **{
        word: word for word in ("oN", "tRue", "nULL", "1:30", "190:20:30.15", "=", "1e", "0x", "0o", "_1", "1.2.3", "+")
    },
    **{word: word for word in ("1e400", "._5", "0x10000000000000000", "100m", "1Gi", "infinity", "NaN", ".")},
    **{f'"{word}"': word for word in ("y", "1e3", "~", "1")},
    "!!float 1": 1,
}
