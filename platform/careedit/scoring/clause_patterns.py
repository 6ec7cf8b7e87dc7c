"""How English says an edit: patterns for whole clauses, in the small language of `careedit.routing.vocabulary`.

`<name>` stands for an entry of `FRAGMENTS` there (lower case) or of `_OWN` here (upper case).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from careedit.routing.vocabulary import FRAGMENTS

PRONOUNS = ("it", "them", "him", "her", "this", "that")

_OWN: Mapping[str, str] = {
    "X": r"(?P<x>.+?)",
    # One thing, with no other one after it.
    "THE": r"(?P<x>it|them|him|her(?= <pose>)|<the> (?:(?!<article> )[\w'-]+ ){0,5}?(?!<article> )[\w'-]+)",
    "article": r"(?:an?|the|his|her|their)",
    "Y": r"(?P<y>.+?)",
    "NEW": r"(?P<y>(?:<a>|<number>) .+?)",
    "V": r"(?P<v>.+?)",
    "N": r"(?P<n><number>)",
    "WHERE": r"(?P<where>.+?)",
    "AT": r"(?P<z>(?:to the (?:left|right) of|on top of|in front of|next to|close to|at|in|on|onto|into|inside|beside|above|"
    r"over|below|under|underneath|beneath|behind|between|near|by|against|around|across|along) .+?)",
    "SHOULD": r"(?:should|must|shall|has to|have to|needs? to|ought to)",
    "BE": r"(?:be|become|look|turn|appear)",
    "BG": r"(?:background|backdrop)",
    "LET": r"(?:make|let|have|get)",
    "TURN": r"(?:rotate|spin|flip|mirror|tilt|turn|twist|point|aim|face)",
    "PAINT": r"(?:make|turn|paint|repaint|color|colour|recolor|recolour|dye|tint|change|resize|set|render|let)",
    "PUT": r"(?:put|place|set|position|stand|hang|lay|stick|drop|have|let|i want)",
    "MOVE": r"(?:move|shift|slide|relocate|reposition|drag|push|bring|carry|send|transfer|take|pull)",
    "ADD": r"(?:add|insert|include|introduce|append|attach|superimpose)",
    "TRAIT": r"(?:colou?r|size|texture|pattern|material|shape|expression|pose|length|font|text)",
    "EFFECT": r"(?:look|style|feel|vibe|mood|effect|filter|atmosphere|tone|tint)",
    "THIS": r"(?:<whole>|it|this)",
    "DIR": r"(?:(?:a bit|a little|slightly|further|more) )?(?:to (?:the |face )?)?(?:left|right|up|down|forwards?|backwards?|back|"
    r"upwards?|downwards?|closer|away|apart|around|upside down|sideways|(?:counter)?clockwise)(?: (?:a bit|a little))?",
}

_TABLE: tuple[tuple[str, *tuple[str, ...]], ...] = (
    (
        "keep",
        (
            r"(?:keep|leav|preserv|protect|retain)(?:e|ing|)(?! only| out| just) <X>"
            r"(?: (?:exactly )?(?:as (?:it|they|he|she) (?:is|are|was|were)|the same|unchanged|untouched|alone|intact|original))?"
        ),
        r"(?:do not|don't|never|without) (?:touch|chang|alter|modify|affect|edit|mov)(?:e|ing|) <X>",
        r"with <X> (?:unchanged|untouched|intact)",
        r"<X> (?:(?:must|should|does) not (?:change|move)|(?:stays?|remains?)(?: exactly)? (?:as .+|the same|unchanged))",
    ),
    (
        "background",
        r"(?:change|replace|switch|swap|turn|convert|transform|set) the <BG>(?: colou?r)? (?:to|into|with|for|by) <V>",
        r"(?:<PAINT>|cover|give) the <BG>(?: colou?r)?(?: (?:be|become|look))? <V>",
        r"the <BG> <SHOULD> <BE> <V>",
        r"(?:use|i want|have|show|give (?:it|<the> [\w ]+?)|put everything on) (?P<v><a> .+?) <BG>",
        r"put (?P<v>.+?) (?:in|as|on|into) the <BG>",
    ),
    (
        "look",
        r"(?:<change>|have|i want) <THIS> (?:to )?look like <V>",
        r"<whole> <SHOULD> look like <V>",
        r"(?:(?:<change>|restyle|redo|give) <THIS> )?(?:in |the |into )*style of <V>",
        r"(?:<change>|restyle|stylize|present) <THIS> as <V>",
        r"(?:<change>|restyle) <whole> (?:in)?to <V>",
        r"(?:<change>|restyle) <THIS> (?:in|into|to) (?P<v>.*?(?:<look>|style).*?)",
    ),
    (
        "effect",
        r"apply <V>(?: (?:to|on|over) .+)?",
        r"(?:give|add)(?: <THIS>)? (?P<v>an? .+? <EFFECT>)(?: (?:to|on|over) <THIS>)?",
    ),
    (
        "picture",
        r"<change> <whole> (?:look )?(?!around |behind |in |on |else )<V>",
        r"<change> (?:it|this) (?:look )?(?P<v>(?:much |more |a bit )*(?:bright|dark|warm|cool|light|sharp)er|.*?<look>.*?)",
    ),
    (
        "remove",
        r"(?:<removing>|get rid of|do away with|lose|ditch|hide|no more|without) <X>",
        r"(?:wipe|cut|take|leave|strip|crop|edit|photoshop|airbrush|clear)(?: out| away) <X>",
        r"(?:take|cut|clear|wipe|crop|edit|photoshop|strip|pull|clean|airbrush) <X> (?:out|away|off)(?: .+)?",
        r"<LET> <X> (?:disappear|vanish|go away)",
        r"<X> <SHOULD> (?:be gone|disappear|vanish|go)",
        r"(?:i )?(?:do not|don't) want (?:to see )?<X>",
    ),
    (
        "replace",
        r"(?:replace|swap|exchange|switch|trade) <X> (?:with|by|for|to|against) <Y>",
        r"substitute <Y> for <X>",
        r"(?:put|use|show|place|have|i want|draw) <Y> (?:in place of|instead of) <X>",
        r"(?:turn|change|transform|convert|morph|make) <X> (?:in)?to (?P<y>(?:<a>) .+?)",
        r"<LET> (?!there )<X> (?:become|be|look like) (?P<y>an? .+?)",
        r"<LET> <THE> (?P<y>an? .+?)",
        r"(?!there )<X> <SHOULD> (?:be|become|look like) (?P<y>an? .+?)",
    ),
    (
        "count",
        (
            r"(?:<change>|show|have|draw|there <SHOULD> be|i want|we need|give me|let there be)(?: it| them)? (?:into |to |exactly )*"
            r"<N> <Y>"
        ),
        r"(?:change|set|put|reduce|increase|raise|lower) the (?:number|count|amount) of <Y> (?:to|at) <N>",
        r"the (?:number|count|amount) of <Y> <SHOULD> be <N>",
        r"(?:keep |leave )?(?:exactly |only |just )<N> <Y>",
    ),
    ("state", r"(?:rotate|turn|spin|change|shift|move) <X> (?:so(?: that)?|until) (?:it|they|he|she) <V>"),
    ("turn", r"<TURN> <X> (?P<v><DIR>|by .+|\d+ degrees.*)"),
    (
        "pose",
        r"(?:rotate|turn|spin) <X> to (?P<v><pose>.*?)",
        r"<LET> <THE> (?P<v>(?:<pose>|wear|carry|ride|play|drive)(?: .+?)?)",
        r"<THE> <SHOULD> (?P<v>(?:<pose>|wear|carry)(?: .+?)?)",
    ),
    (
        "attribute",
        r"(?:change|set|adjust|make) the <TRAIT> of <X> (?:to|into|be) <V>",
        r"the <TRAIT> of <X> <SHOULD> be <V>",
        (
            r"<PAINT> <X> (?:to |into |in |be |look )?(?P<v>(?:(?:much|more|less|very|a bit) )*"
            r"(?:<color>|<size>|<texture>|<mood>)(?: and .+?)?)"
        ),
        r"give <X> (?P<v>an? .+? (?:colou?r|pattern|texture|size|look|expression|finish))",
        r"<X> in (?P<v><color>|<texture>)",
        r"<THE> <SHOULD> <BE> <V>",
        r"(?:change|turn|convert|transform|recolor) <X> (?:in)?to <V>",
        r"(?:<LET>|turn) <THE> (?:<BE> )?(?P<v>(?:(?:more|much|less|very) )?[\w'-]+)",
        r"cover <X> (?P<v>(?:with|in) .+?)",
    ),
    ("shift", r"<MOVE> <X> (?P<v><DIR>)"),
    ("move", r"<MOVE> <X> (?:so that it is |to be )?(?:<AT>|(?:to|toward|towards) <WHERE>)"),
    (
        "place",
        r"<PUT> <THE>(?: be)? <AT>",
        r"<THE> (?:<SHOULD> (?:be|go|stand)|goes|belongs) (?:<AT>|to <WHERE>)",
    ),
    (
        "add at",
        r"(?:<ADD>|<giving>|position|put in|there <SHOULD> be|i want|let there be) <NEW> <AT>",
        r"<ADD> <Y> to <WHERE>",
        r"give (?P<where><the> .+?) <NEW>",
        r"give (?P<where><the> [\w'-]+) (?P<y>[\w'-]+)",
    ),
    (
        "add",
        r"<ADD> <Y>",
        r"(?:<giving>|there <SHOULD> be|i want|let there be) <NEW>",
    ),
    ("take", r"(?:take|grab|pick up|pick) <X>"),
)

_VERBS = (
    r"(?:<ADD>|<removing>|<PAINT>|<PUT>|<MOVE>|<TURN>|<LET>|replace|swap|exchange|switch|substitute|give|draw|get rid|hide|"
    r"transform|convert|cover|apply|use|show|keep(?:ing)?|leav(?:e|ing)|preserv(?:e|ing)|protect|do not|don't|without|open|close)"
)


def _compiled(text: str) -> re.Pattern[str]:
    fragments = {**FRAGMENTS, **_OWN}
    while (fuller := re.sub(r"(?<!\?P)<(\w+)>", lambda match: fragments[match[1]], text)) != text:
        text = fuller
    return re.compile(text, re.IGNORECASE)


PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, _compiled(pattern)) for kind, *patterns in _TABLE for pattern in patterns
)
"""(kind, pattern of a whole clause); the first that fits says what a clause is."""

SPLITS = _compiled(
    rf"[;.\n]+(?= |$)|,? (?:and then|then|and|but|while) (?={_VERBS} \w)|, (?={_VERBS} \w)"
    r"| (?=with [\w ]+ (?:unchanged|intact))| (?=without (?:chang|touch|alter))"
    r"|(?:, (?:and |but )?|(?<!everything)(?<!all) (?:and|but) )(?=<the> [\w' ]+ (?:must not|should stay|stays?|remains?)\b)"
)
"""Where one clause ends and the next one begins; "and" only before a verb, for "a cup and a plate" is one thing."""

HEADS = _compiled(
    r"^(?:please|kindly|now|then|and|but|just|also|(?:can|could|would|will) you|(?:i|we) (?:want|would like|need) you to|try to),? +"
)
TAILS = _compiled(
    r",? (?:please|now|instead|again|there|too|as well|thanks|thank you|in all|(?:in|from|to|on) <the> <picture>)$"
)
"""What may stand before and after an order without changing it."""

PLACE = _compiled(r"(?:at|in|on) the [\w -]+")
"""Nothing but a place."""
LEADING_PLACE = _compiled(
    r"^(?P<z>(?:at|in|on|to) the [\w -]+?),? (?P<rest>(?:<ADD>|put|place|draw|there <SHOULD> be|i want) .+)$"
)
"""A place that is named before the order."""

EXCEPT = _compiled(
    r"\b(?:except(?: for| on)?|other than|but(?: not)?(?: on| for)?) (?P<x><the> [\w'-]+(?: [\w'-]+)??)"
    r"(?=$|[,.;]| (?:in|into|as|be|look|looks|becomes?|should|everything)\b)"
)
"""An exception, and what is excepted: "everything but the dog"."""
