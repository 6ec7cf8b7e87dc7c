"""What the rules router knows of English edits: which words speak for which edit kind.

Patterns match the normalised instruction (`careedit.routing.words`): lower case, single spaces, "," for any pause;
names in angle brackets are `careedit.routing.vocabulary`. A weight says how much a rule speaks for its kind: 4 settles it, 2
to 3 is a verb with its object, 1 to 1.5 a hint. The weights of one kind add up, and the kind with the most wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from careedit.routing.vocabulary import pattern

KINDS: Mapping[str, str] = {
    "remove": "erase",
    "add": "compose",
    "replace": "compose",
    "action": "compose",
    "counting": "compose",
    "relation": "compose",
    "attribute": "compose",
    "background": "style",
    "style": "style",
    "identity": "identity",
    "reference": "reference",
}
"""Edit kind -> the competence that it needs by default."""


@dataclass(frozen=True)
class Rule:
    """One thing that speaks for an edit kind."""

    kind: str
    """A key of `KINDS`."""
    weight: float
    """How much it says."""
    pattern: re.Pattern[str]
    """Searched in the normalised instruction; its groups, or else the whole match, are quoted in a reason."""


_TABLE: tuple[tuple[str, float, *tuple[str, ...]], ...] = (
    ("remove", 4, r"<removing>|get(?:ting)? rid of|rid|ditch|lose <the>|do away with"),
    (
        "remove",
        2,
        r"^(?:please |can you |could you |now )*(?:<removing>|get rid of)(?! (?:the |whole |entire )*background)",
    ),
    ("remove", 4, r"(wipe|edit|photoshop|crop|leave|strip|rub|blot|airbrush|cut|take|clear|blank) (out|away|off)"),
    (
        "remove",
        4,
        r"(take|clear|cut|wipe|strip|edit|crop|pull|throw|clean) <gap>(away|out|off)(?! of <the> way)",
        r"(airbrush|photoshop) <gap>(away|out|off)",
    ),
    ("remove", 4, r"(drop|take|pull|crop|clear|clean|cut) <the> <gap>(from)"),
    ("remove", 4, r"(disappear|vanish)(?:s|ed)?|go away|(be|is|are|were) (gone|invisible)|(?:be|being) absent"),
    (
        "remove",
        4,
        r"(not want) (?:to see )?<the>|(not) (?:want to |need to )?(see)",
        r"no longer (?:want|have|be|show|see|contain|there)",
    ),
    (
        "remove",
        4,
        r"not (?:be |have )?(?:there|here|visible|in <the> <picture>)|hide|(?:leave|keep|show) only",
        r"nothing (?:but|except)",
    ),
    (
        "remove",
        3,
        r"without(?! <changing>)|no more|^no|with nothing|^(?:clear|empty|clean up|clean)",
        r"(?:clear|empty|clean) out",
    ),
    ("add", 3, r"add(?:ing)?|insert|include|append|introduce|superimpose"),
    (
        "add",
        2.5,
        r"there (?:\w+ )?(?:be|is) <a>|let there be|(?:can|could|may) there be|appears?|pops? up",
        r"show up|bring in",
    ),
    (
        "add",
        2,
        r"(needs?|wants?|like|has|gets?|lacks?|miss(?:es|ing)?|fill|deserves?) (?:[\w']+ )??<a>|added",
        r"inserted",
    ),
    ("add", 1, r"^<a> <gap>(?:at|in|on|to) <the>"),
    ("add", 2, r"(<giving>) (?:\w+ )??<a>"),
    (
        "replace",
        7,
        r"(?:<removing>|get rid of) <gap>(?:and|then|,) (?:then |instead )?(?:add|put|draw|insert|place|paint|use)",
    ),
    ("replace", 3, r"replac(?:e|ing)|swap|exchange|substitute|switch(?! on| off)|trade"),
    ("replace", 2, r"(change|turn|transform|convert|make|morph|let) <gap>(into|to|become|be) (?:an?|some)"),
    ("replace", 2, r"instead(?: of)?|in place of|in <the> place|becomes?|rather than"),
    ("replace", 2, r"should (?:be|become|turn into) an?|trade|for an?"),
    ("replace", 1.5, r"(make it) an?"),
    ("replace", 2.5, r"(make) <the> (?!<picture>|whole|entire|full)<gap>(look like)"),
    (
        "relation",
        3,
        r"move|shift|slide|relocate|reposition|drag|push|bring|carry|send|transfer|shove|transport",
        r"swap places|switch places",
    ),
    ("relation", 2, r"(goes|go|belongs?|be|comes?|located|positioned|placed|sits?) <spot>"),
    ("relation", 2, r"(put|place|take|set|stand|have|want|let|get|position|drop|leave|stick|locate) <the> <gap><spot>"),
    ("relation", 1, r"to the (?:left|right) of|above|below|beneath|next to|in between|in front of|on top of"),
    ("counting", 3, r"number of|count of|amount of|how many|exactly <number>|twice as many|in total"),
    (
        "counting",
        4,
        r"(make|turn) (it|them) (?:into )?(<number>)",
        r"(there should be|show|have|want|need|give me) (<number>)",
    ),
    (
        "counting",
        4.5,
        r"(?:only|just) <number>",
        r"(?:limit|reduce|increase|raise|lower|cut|down|up) (?:\w+ ){0,6}to <number>",
    ),
    ("counting", 2.5, r"(make|keep|leave|be|are|is|have|has|with|like|want|to) (<number>)|let there be (<number>)"),
    ("counting", 1.5, r"(?!one\b)<number> (?:\w+ ){0,3}?\w+s|^<number>|one more|double|triple|as many"),
    (
        "action",
        2.5,
        r"(make|let|have|get|turn|rotate|spin|flip|so|should|must|want|needs?|until) (?:<gap>)?(?:to )?(<pose>)",
    ),
    (
        "action",
        2,
        r"^(?:please )?(?:rotate|spin|flip|mirror|tilt|point|raise|lower|open|close)|upside down",
        r"facing|pointing",
    ),
    (
        "action",
        3,
        r"(look|looks|be|is|feel|feels|an?) (<mood>)|(<mood>) (?:face|expression|look)",
        r"(make) <gap>(<mood>)",
    ),
    (
        "action",
        3,
        r"expression|gesture|pose|mood|a smile|a frown|cheer (?:<gap>)?up",
        r"(orient|direct|aim|swivel|twist) <the>",
    ),
    (
        "action",
        2,
        r"(turn|faces?|points?|looks?|aims?) (?:<gap>)?(?:to the )?(up|down|left|right|around)(?:wards?)?<end>",
    ),
    (
        "action",
        1.5,
        r"(faces|points|smiles|sits|stands|runs|jumps|walks|sleeps|waves|looks)",
        r"(?:more |now )?(<mood>)<end>",
    ),
    ("attribute", 2, r"color|recolor|repaint|dye|tint|hue"),
    ("attribute", 2, r"(make|turn|paint|change|let|be|is|dye) (?:<gap>)?(?:to )?(<color>)<end>"),
    (
        "attribute",
        2,
        r"(make|turn|let|give|be|change) (?:<gap>)?(?:to )?(<size>)(?:<end>| size)|resize|enlarge",
        r"shrink|scale|stretch",
    ),
    (
        "attribute",
        2,
        r"(make|turn|let|be|change|cover) (?:<gap>)?(?:to )?(<texture>)<end>|texture|pattern|material",
        r"made (?:out )?of",
    ),
    (
        "attribute",
        1.5,
        r"(in|with|becomes?|turns|gets?|fill) (?:<gap>)?(<color>|<texture>)<end>|stripes|dots|brighter",
        r"darker|lighter|shinier|older|younger|thicker|softer",
    ),
    (
        "attribute",
        1,
        r"(make|turn|change|give|let|adjust|modify|set|fix) <the>(?! (?:<picture>|whole|entire|full|background)(?!\w))",
    ),
    (
        "background",
        5,
        r"(?<!in the )(?<!on the )(?<!from the )(?<!to the )(?<!into the )(?<!at the )(?:background|backdrop)",
    ),
    ("background", 3.5, r"<replacing> <gap>(in the background|environment|surroundings|setting|scenery|landscape)"),
    (
        "background",
        3.5,
        r"<replacing> <gap>(to|into|with|in) (?:an? )?(?:\w+ ){0,4}(setting|scene|scenery|landscape|cityscape)",
        r"<replacing> <gap>(to|into|with|in) (?:an? )?(?:\w+ ){0,4}(<place>)<end>",
    ),
    ("background", 3, r"(behind) (?:everything|all|it all|the (?:objects|things|people|subject))"),
    ("background", 0.3, r"(in|on|from|to|into|at) the (background|backdrop)"),
    (
        "style",
        2.5,
        r"in (?:the|an?) (?:[\w']+ ){0,4}style|(?:the )?style of|the style|(?<!hair )styles?<end>",
        r"stylized?|stylised?|restyled?|filter|aesthetic|in the manner of",
    ),
    ("style", 2.5, r"(?:look|mood|feel|vibe|effect) of|an? (?:\w+ ){1,3}(?:look|feel|vibe|effect|atmosphere)"),
    ("style", 2, r"(?:look|looks|looking|appear) (?:more )?(?:like|as if|as though)"),
    ("style", 1.5, r"(<look>)"),
    ("style", 3, r"(<change>|apply) (<whole>) (?:in|into|to|as|look|an?)(?! <number> \w+s)"),
    ("style", 3, r"(<whole>) (becomes?|into|as|should (?:look|be|become))"),
    (
        "style",
        1,
        r"(<change>) (it|this) (?:in|into|to|as|look|an?)(?! <number>)",
        r"(<change>) (this) (?:an? )?(<look>)",
    ),
    (
        "style",
        3,
        r"(<change>|give) (<whole>|it) (?:an? |look |much |more |bit |slightly )*(?:bright|dark|warm|cool)er",
        r"(<change>|give) (<whole>|it) (?:look )?(?:much |more )*(?:vivid|vibrant)",
    ),
    (
        "style",
        3,
        r"brightness|contrast|saturation|desaturate|exposure|color grading|white balance|sharpen",
        r"overall|(change|adjust|fix|improve|correct) the (lighting)",
    ),
    ("style", 7, r"(<removing>|drop|drain|strip|take out|take away) (?:all )?(?:of )?(?:the )?(colors?)(?! of)"),
    ("reference", 2, r"reference|(?:second|other|example|sample|attached) (?:picture|photo|image)"),
)

RULES: tuple[Rule, ...] = tuple(Rule(kind, weight, pattern(*alternatives)) for kind, weight, *alternatives in _TABLE)
"""Every rule; their order does not matter."""
