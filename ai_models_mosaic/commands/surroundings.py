"""What of the machine must be right before anything is read: ecCodes' tables, and a name of the user."""

from __future__ import annotations

import getpass
import os

from ..errors import MosaicError

REDIRECTIONS = (
    "ECCODES_DEFINITION_PATH",
    "ECCODES_EXTRA_DEFINITION_PATH",
    "ECCODES_SAMPLES_PATH",
    "GRIB_DEFINITION_PATH",
    "GRIB_SAMPLES_PATH",
)
"""Variables that make ecCodes use tables other than its own."""

LABELS = {
    "productDefinitionTemplateNumber": 1,
    "class": "ml",
    "stream": "enfo",
    "type": "pf",
    "number": 7,
    "shortName": "q",
    "level": 500,
    "step": 240,
}
"""Keys of a message, in the order in which they are to be set."""


def check_surroundings() -> None:
    """Refuse what would end in a traceback later; of ecCodes' tables only those that are not its own are tried.

    Raises
    ------
    MosaicError
        Says what to do.
    """
    check_user()
    if _redirections():
        check_eccodes()


def check_user() -> None:
    """Refuse a user without a name: earthkit-data, which the runner needs, asks for it when it is imported.

    Raises
    ------
    MosaicError
        If the id of the user has none.
    """
    try:
        getpass.getuser()
    except (KeyError, OSError) as error:
        raise MosaicError(
            f"the user id {os.getuid()} has no name on this machine, as happens in containers, and earthkit-data needs "
            "one: expected LOGNAME in the environment, or an entry in /etc/passwd. Set it: export LOGNAME=mosaic"
        ) from error


def check_eccodes() -> None:
    """Write a message as a forecast does, and read it again.

    Raises
    ------
    MosaicError
        If ecCodes fails, or reads something else than was written.
    """
    import eccodes

    try:
        found = _there_and_back()
    except eccodes.CodesInternalError as error:
        raise MosaicError(_advice(str(error))) from error
    if found != LABELS:
        differing = [
            f"{name} {found[name]} in place of {value}" for name, value in LABELS.items() if found[name] != value
        ]
        raise MosaicError(_advice(f"it reads {', '.join(differing)}"))


def _there_and_back() -> dict[str, object]:
    import eccodes

    handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2")
    try:
        eccodes.codes_set(handle, "setLocalDefinition", 1)
        for name, value in LABELS.items():
            eccodes.codes_set(handle, name, value)
        eccodes.codes_set_values(handle, [0.0] * eccodes.codes_get_size(handle, "values"))
        message = eccodes.codes_get_message(handle)
    finally:
        eccodes.codes_release(handle)
    handle = eccodes.codes_new_from_message(message)
    try:
        return {name: eccodes.codes_get(handle, name) for name in LABELS}
    finally:
        eccodes.codes_release(handle)


def _redirections() -> list[str]:
    return [f"{name}={os.environ[name]}" for name in REDIRECTIONS if os.environ.get(name)]


def _advice(problem: str) -> str:
    import eccodes

    redirections = _redirections()
    cause = (
        f"Its tables are those of {', '.join(redirections)}: expected tables of this very version. Unset "
        + ("it" if len(redirections) == 1 else "them")
        if redirections
        else "Expected a whole installation: install it again (pip install --force-reinstall eccodes eccodeslib)"
    )
    return f"ecCodes {eccodes.codes_get_api_version()} cannot write and read a message: {problem}. {cause}"
