"""Every GRIB message that ecCodes holds for this package is given back, whatever happens."""

import ast
from pathlib import Path

import ai_models_mosaic

PACKAGE = Path(ai_models_mosaic.__file__).parent
MAKERS = {
    "codes_new_from_message",
    "codes_new_from_file",
    "codes_grib_new_from_file",
    "codes_grib_new_from_samples",
    "codes_clone",
}

OWNERS = {"Base.handle", "Template.twin"}
"""What keeps handles as long as it lives, and gives them back at its end."""


def functions(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield from ((f"{node.name}.{part.name}", part) for part in node.body if isinstance(part, ast.FunctionDef))
        elif isinstance(node, ast.Module):
            yield from ((part.name, part) for part in node.body if isinstance(part, ast.FunctionDef))


def calls(nodes):
    for node in nodes:
        for part in ast.walk(node):
            if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute):
                yield part.func.attr


def test_who_makes_a_handle_releases_it_in_a_finally():
    makers, wrong = set(), []
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, function in functions(ast.parse(path.read_text(encoding="utf-8"))):
            made = sum(call in MAKERS for call in calls([function]))
            if not made or name in OWNERS:
                continue
            makers.add(path.stem)
            endings = [part.finalbody for part in ast.walk(function) if isinstance(part, ast.Try) and part.finalbody]
            released = sum("codes_release" in set(calls(body)) for body in endings)
            if released < made:
                wrong.append(f"{path.name}: {name}")
    assert wrong == []
    assert {"grib_index", "messages", "originals", "output", "sample"} <= makers
