"""Phrases that say what must stay as it is."""

from __future__ import annotations

import re

from careedit.routing.vocabulary import pattern

_STOP = r"(?= (?:and|while|then|but|when|into|to look|look|looks|becomes?|turns?|should|must|as an?|,)(?!\w)|$)"
# A noun phrase before its verb: "the face on the left" in "the face on the left stays the same".
_SUBJECT = r"<the> (?:(?!but |and |while |with )[\w']+ ){1,5}?"
# What follows a protecting word, up to the end of its clause.
_CLAUSE = rf"(?: [\w']+)*?{_STOP}"

_UNTOUCHED = (
    r"unchanged|untouched|unaffected|intact|unaltered|unmodified|as (?:it|they|he|she) (?:is|are|was|were)"
    r"|as is|as before|(?:stay(?:s|ing)?|remain(?:s|ing)?|be)(?: exactly| just)? (?:the same|as|put)|stay(?:s|ing)?"
    r"|remain(?:s|ing)?|preserved|kept|protected|spared|excluded|exempt|left (?:alone|as)"
)

ALL_BUT = pattern(
    r"(?:everything|all|anything|<whole>)(?: (?:in|on|around) <the> <picture>)?"
    r" (but|except(?: for)?|apart from|other than|around|outside)"
    rf"(?! (?:keep|leave|preserve|protect|do|not|with|without))(?: [\w']+)+?{_STOP}"
)
"""Protects one thing and says at the same time that the edit is for all the rest."""

PROTECTING: tuple[re.Pattern[str], ...] = tuple(
    pattern(text)
    for text in (
        # "keep only" and "leave out" remove.
        (
            r"(keep(?:s|ing)?|preserv(?:e|es|ing)|protect(?:s|ing)?|retain(?:s|ing)?|maintain(?:s|ing)?|spare"
            r"|leav(?:e|ing))"
            rf"(?! (?:[\w']+ ){{0,5}}(?:out|off|only|nothing)(?!\w)){_CLAUSE}"
        ),
        rf"{_SUBJECT}(must|should|may|can|does|do|is|are) not (?:to |be |get )*(<changing>)",
        rf"(?:with )?{_SUBJECT}(?:must |should |to |is |are )*({_UNTOUCHED})",
        rf"(not|never|without)(?: to)? (<changing>){_CLAUSE}",
        rf"(except|excluding|apart from|aside from|other than|save for|besides)(?: for)?{_CLAUSE}",
        rf"(but|though|just|only|and) not <the>(?= ){_CLAUSE}",
        rf"(but) <the>(?= ){_CLAUSE}",
        rf"(ignor(?:e|ing)|skip(?:ping)?|exclud(?:e|ing)|freez(?:e|ing)|exempt(?:ing)?|sparing) <the>(?= ){_CLAUSE}",
        rf"(nothing) (?:must |should |may )?(?:happens?|changes?) (?:to|about|on|with|in) <the>(?= ){_CLAUSE}",
        rf"(no changes?) to{_CLAUSE}",
        rf"({_UNTOUCHED})",
    )
)
"""Phrases that say what must stay; each match is one clause."""

GENERIC = pattern(r"rest|else|others?|everything|background|surroundings|remaining")
"""Names that no object has: "keep the rest" guards any edit and asks for no special care."""
