"""Players in groups of groups: which belong together, declared by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from governed_serving.blackbox.errors import NotExplainable

__all__ = ["MAX_DEPTH", "Node", "hierarchy_of"]

MAX_DEPTH = 8
"""Levels of groups within groups."""
MAX_GROUPS = 256


@dataclass(frozen=True)
class Node:
    """A player (its position), or a group of nodes; the root's name is empty."""

    name: str
    player: int | None = None
    children: tuple["Node", ...] = ()

    def players(self) -> tuple[int, ...]:
        """All positions below, in the order of the declaration."""
        if self.player is not None:
            return (self.player,)
        return tuple(player for child in self.children for player in child.players())

    def groups(self) -> tuple[tuple["Node", str], ...]:
        """Every group below (not this one) with the name of the group it is in, outer ones first."""
        below = [(child, self.name) for child in self.children if child.player is None]
        return tuple(below + [inner for child, _ in below for inner in child.groups()])

    def among(self, places: Mapping[int, int]) -> "Node":
        """Of the players in ``places`` (position → new position) alone; groups without any are left out.

        A player that changes nothing takes nothing from the values of the others, hence may go.
        """
        kept = []
        for child in self.children:
            if child.player is not None:
                if child.player in places:
                    kept.append(Node(child.name, places[child.player]))
            elif (rest := child.among(places)).children:
                kept.append(rest)
        return Node(self.name, None, tuple(kept))


def hierarchy_of(players: Sequence[str], declared: Mapping[str, Sequence[str]]) -> Node:
    """The tree of ``declared``: group → names of players and of other groups; what no group names stands beside them.

    Raises :class:`NotExplainable` for a group that is empty, has a player's name, names what there isn't, or something
    that it or another group has named, and for groups that contain each other.
    """
    if len(declared) > MAX_GROUPS:
        raise NotExplainable(f"hierarchy: expected at most {MAX_GROUPS} groups, found {len(declared)}")
    place = {name: index for index, name in enumerate(players)}
    owner = _owners(place, declared)

    def node(name: str, depth: int) -> Node:
        if name in place:
            return Node(name, place[name])
        if depth > MAX_DEPTH:
            raise NotExplainable(f"hierarchy: expected at most {MAX_DEPTH} levels of groups, found more at {name!r}")
        return Node(name, None, tuple(node(member, depth + 1) for member in declared[name]))

    tops = [name for name in declared if name not in owner] + [name for name in players if name not in owner]
    root = Node("", None, tuple(node(name, 1) for name in tops))
    reached = {group.name for group, _ in root.groups()}
    if circular := [name for name in declared if name not in reached]:
        raise NotExplainable(f"hierarchy: group {circular[0]!r} is within itself; name it in none of its own groups")
    return root


def _owners(place: Mapping[str, int], declared: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Member → the one group that names it."""
    owner: dict[str, str] = {}
    for group, members in declared.items():
        if not group:
            raise NotExplainable("hierarchy: expected a name for each group, found an empty one")
        if group in place:
            raise NotExplainable(f"hierarchy: group {group!r} has the name of a feature; give it another name")
        if not members:
            raise NotExplainable(f"hierarchy: group {group!r}: expected at least one feature or group, found none")
        for member in members:
            if member not in place and member not in declared:
                raise NotExplainable(
                    f"hierarchy: group {group!r}: no feature or group {member!r}; there are "
                    f"{', '.join([*place, *declared])}"
                )
            if member in owner:
                both = f"group {group!r} twice" if owner[member] == group else f"{owner[member]!r} and {group!r}"
                raise NotExplainable(f"hierarchy: {member!r} is in {both}; name it once")
            owner[member] = group
    return owner
