"""Every field of a record, dataclass or named tuple has a docstring of a full sentence, because users read it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[3]
SOURCES = (ROOT / "platform", ROOT / "deployments", ROOT / "eval")
MIN_WORDS = 5


def undocumented_fields(source: str) -> list[str]:
    """`Class.field` of every public field without a docstring of at least `MIN_WORDS` words."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_") or not _has_fields(node):
            continue
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                text = (
                    after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else ""
                )
                if not field.target.id.startswith("_") and len(str(text).split()) < MIN_WORDS:
                    found.append(f"{node.name}.{field.target.id}")
    return found


def _has_fields(node: ast.ClassDef) -> bool:
    """Whether a class is a record, a dataclass or a named tuple, and not a protocol or a class with typed attributes."""
    decorators = {ast.unparse(one).split("(")[0].rpartition(".")[2] for one in node.decorator_list}
    bases = {ast.unparse(one).split("[")[0].rpartition(".")[2] for one in node.bases}
    return "dataclass" in decorators or bool(bases - {"Protocol", "ABC", "Generic", "Exception"})


def modules() -> dict[str, str]:
    """Source of every module, by its path from the root."""
    return {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
        for root in SOURCES
        for path in sorted(root.rglob("*.py"))
    }


def test_every_field_has_a_docstring_of_a_full_sentence():
    found = {name: undocumented_fields(source) for name, source in modules().items()}
    assert {name: fields for name, fields in found.items() if fields} == {}
