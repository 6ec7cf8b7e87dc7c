"""The in-context prompts (ICEdit, arXiv 2504.20690, section 3.1; the wording is that of its released code)."""

DIPTYCH = "A diptych with two side-by-side images of the same scene. On the right, the scene is exactly the same as on the left but"
TRIPTYCH = (
    "A triptych with three side-by-side images. On the left, a reference. On the right, the scene is exactly the same as in "
    "the middle but, taking from the reference,"
)


def in_context_prompt(instruction: str, *, references: int = 0) -> str:
    """The prompt that the base sees: the fixed frame, then the instruction as the user wrote it."""
    return f"{TRIPTYCH if references else DIPTYCH} {instruction.strip()}"
