"""Players of the coalition game: single features, or named groups that enter and leave together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from governed_serving.blackbox.errors import NotExplainable

__all__ = ["Players"]


@dataclass(frozen=True)
class Players:
    """``names[i]`` owns the features ``members[i]``; every feature belongs to exactly one player."""

    names: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of_groups(cls, features: Sequence[str], groups: Mapping[str, Sequence[str]]) -> "Players":
        """Groups first, then each feature that no group names on its own.

        Raises :class:`NotExplainable` for a group that is empty, names an unknown feature, or one that another group
        has.
        """
        owner: dict[str, str] = {}
        for group, members in groups.items():
            if not members:
                raise NotExplainable(f"group {group!r}: expected at least one feature, found none")
            for feature in members:
                if feature not in features:
                    raise NotExplainable(
                        f"group {group!r}: no feature {feature!r}; the model has {', '.join(features)}"
                    )
                if feature in owner:
                    raise NotExplainable(
                        f"feature {feature!r} is in the groups {owner[feature]!r} and {group!r}; name it once"
                    )
                owner[feature] = group
        alone = [feature for feature in features if feature not in owner]
        clash = [feature for feature in alone if feature in groups]
        if clash:
            raise NotExplainable(f"group {clash[0]!r} has the name of a feature outside it; give it another name")
        names = (*groups, *alone)
        return cls(names, tuple(tuple(groups[name]) if name in groups else (name,) for name in names))
