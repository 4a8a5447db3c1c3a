"""What a profile says of itself, beside the roofs of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group

from graphopt.compiler.profile import Profile
from graphopt.errors import OptionError
from graphopt.inspection.profiling import events as profile_events
from graphopt.inspection.profiling.limits import limits_of
from graphopt.inspection.profiling.roofs import measure_roofs
from graphopt.inspection.profiling.tables import BY, profile_tables
from graphopt.progress import announce


def tables(profile: Profile, by: Sequence[str], limit: int) -> Group:
    """See `Profile.tables`."""
    check_tables(by)
    roofs = _roofs(profile)
    return profile_tables(profile, limits_of(profile, roofs), roofs.text, by, limit)


def check_tables(by: Sequence[str]) -> None:
    """Raises OptionError for a table that there is not."""
    for one in by:
        if one not in BY:
            raise OptionError("by", one, f"give some of {', '.join(BY)}")


def events(profile: Profile) -> list[dict[str, Any]]:
    """See `Profile.events`."""
    return profile_events.node_events(profile, limits_of(profile, _roofs(profile)))


def trace(profile: Profile) -> dict[str, Any]:
    """See `Profile.trace`."""
    return profile_events.trace(profile)


def _roofs(profile: Profile) -> Any:
    announce("roofs of this machine")
    return measure_roofs(profile.threads or 1)
