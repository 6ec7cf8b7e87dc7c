"""What the rules router knows of English: rules that speak for an edit kind, and phrases that protect something.

Patterns match the normalised instruction (`careedit.routing.words`): lower case, single spaces, "," for any pause. Names
in angle brackets are the fragments below. A weight says how much a rule speaks for its kind: 4 settles it, 2-3 is a verb
with an object, 1-1.5 is a hint. Weights of one kind add up; the kind with the most wins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

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

_PICTURE = r"(?:picture|photo|photograph|image|pic|scene|shot|painting|drawing|frame|thing)s?"
_FRAGMENTS = {
    # One to eight words, none of them a pause.
    "gap": r"(?:[\w']+ ){1,8}?",
    "the": r"(?:the|this|that|these|those|his|her|its|their|my|our|your|all|both|each|every|one|two|three|\w+'s)",
    "a": r"(?:a|an|some|another|more|several|many)",
    "number": r"(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|a dozen|\d+)",
    "picture": _PICTURE,
    "whole": rf"(?:everything|(?:all of |all )?(?:the|this|my|that) (?:whole |entire |full )?{_PICTURE}(?! of))",
    "change": r"(?:make|turn|convert|transform|change|render|redo|show|paint|repaint|draw|redraw|depict|recreate|let)",
    "color": r"(?:red|green|blue|yellow|purple|violet|orange|(?<!black and )white|black(?! and white)|gray|pink|brown|beige|navy|cyan|teal|turquoise"
    r"|gold|golden|silver|olive|maroon|magenta|lavender|(?:dark|light|bright|pale|deep) \w+)",
    "size": r"(?:small|smaller|big|bigger|large|larger|medium|tiny|huge|giant|tall|taller|short|shorter|wide|wider|narrow"
    r"|narrower|thin|thinner|thick|thicker|long|longer|slim|slimmer)(?: sized)?",
    "texture": r"(?:striped|stripy|dotted|spotted|plain|checkered|checked|plaid|polka dot|wooden|metallic|metal|glass|marble"
    r"|stone|furry|fluffy|leather|knitted|transparent|shiny|matte|rusty|glossy|patterned|smooth|rough)",
    "mood": r"(?:happy|sad|angry|surprised|scared|tired|bored|excited|calm|serious|joyful|smiling|crying|cheerful|unhappy)",
    "pose": r"(?:point|face|look (?:up|down|left|right|away|at|toward|back)|sit|stand|run|jump|walk|smile|laugh|cry|frown"
    r"|grin|sleep|lie|lean|bend|kneel|crouch|dance|fly|swim|wave|wink|raise|lower|lift|open|close|shut|hold|hug|kiss|eat"
    r"|drink|read|bark|yawn|climb|stretch|bow|nod)(?:s|es|ing|ting|ning|ping)?",
    "end": r"(?= ?(?:$|,|(?:and|please|instead|now|again|too|but|in|with|like)(?!\w)))",
    "spot": r"(?:to|at|on|onto|in|into|inside|next|beside|above|over|below|under|underneath|behind|between|near|closer"
    r"|left|right|in front|away from|up|down|across|toward|towards|further|farther|back|forward)",
    "look": r"(?:sketch|cartoon|comics?|comic book|manga|anime|ghibli|pixar|disney|claymation|caricature|oil painting|drawing"
    r"|painting|watercolor|acrylics?|charcoal|pastel|crayon|pencil|ink|pixel art|voxel|low poly|mosaic|stained glass|poster"
    r"|pop art|line art|art deco|art nouveau|ukiyo e|impression(?:ist|ism|istic)|cub(?:ist|ism)|surreal(?:ist|ism|istic)?"
    r"|baroque|renaissance|abstract|gogh|monet|picasso|hokusai|rembrandt|vermeer|dali|warhol|klimt|sepia|black and white"
    r"|monochrom\w*|gr[ae]yscale|negative|invert(?:ed)?|vintage|retro|noir|old photo|old fashioned|polaroid|cinematic|hdr"
    r"|blur(?:red|ry)?|posteri[sz]ed?|pixelat\w+|night|nighttime|sunset|sunrise|dawn|dusk|winter|wintry|autumn|summer|snowy"
    r"|rainy|foggy|cyberpunk|steampunk|vaporwave|neon|3d|render(?:ing)?|photorealistic|realistic|engraving|etching|woodcut"
    r"|graffiti|embroidery|origami|lego|illustration|fresco|tapestry)",
    "place": r"(?:beach|forest|jungle|desert|mountains?|city|skyline|countryside|ocean|meadow|field|street|park|garden|studio)",
    "replacing": r"(change|replace|switch|swap|turn|transform|put|place|set)",
    "removing": r"(?:remov|delet|eras|eliminat|obliterat|discard|scrub|omit+|purg)(?:e|es|ed|ing|s|)",
    "changing": r"(?:chang|touch|alter|modify|modifi|affect|edit|mov|replac|remov|delet|eras|recolor|disturb)"
    r"(?:e|es|ed|ing|s|)",
}


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"<(\w+)>", lambda match: _FRAGMENTS[match[1]], rf"\b(?:{text})(?!\w)"))


@dataclass(frozen=True)
class Rule:
    """One thing that speaks for an edit kind. Its groups, or else its whole match, are quoted in a reason."""

    kind: str
    """A key of `KINDS`."""
    weight: float
    """How much it says."""
    pattern: re.Pattern[str]
    """Searched in the normalised instruction."""


_TABLE: tuple[tuple[str, float, str], ...] = (
    ("remove", 4, r"<removing>|get(?:ting)? rid of|rid|ditch|lose <the>|do away with"),
    ("remove", 2, r"^(?:please |can you |could you |now )*(?:<removing>|get rid of)(?! (?:the |whole |entire )*background)"),
    ("remove", 4, r"(wipe|edit|photoshop|crop|leave|strip|rub|blot|airbrush|cut|take|clear|blank) (out|away|off)"),
    ("remove", 4, r"(take|clear|cut|wipe|strip|edit|crop|pull|throw|clean|airbrush|photoshop) <gap>(away|out|off)(?! of <the> way)"),
    ("remove", 4, r"(drop|take|pull|crop|clear|clean|cut) <the> <gap>(from)"),
    ("remove", 4, r"(disappear|vanish)(?:s|ed)?|go away|(be|is|are|were) (gone|invisible)|(?:be|being) absent"),
    ("remove", 4, r"(not want) (?:to see )?<the>|(not) (?:want to |need to )?(see)|no longer (?:want|have|be|show|see|contain|there)"),
    ("remove", 4, r"not (?:be |have )?(?:there|here|visible|in <the> <picture>)|hide|(?:leave|keep|show) only|nothing (?:but|except)"),
    ("remove", 3, r"without(?! <changing>)|no more|^no|with nothing|^(?:clear|empty|clean up|clean)|(?:clear|empty|clean) out"),
    ("add", 3, r"add(?:ing)?|insert|include|append|introduce|superimpose"),
    ("add", 2.5, r"there (?:\w+ )?(?:be|is) <a>|let there be|(?:can|could|may) there be|appears?|pops? up|show up|bring in"),
    ("add", 2, r"(needs?|wants?|like|has|gets?|lacks?|miss(?:es|ing)?|fill|deserves?) (?:[\w']+ )??<a>|added|inserted"),
    ("add", 1, r"^<a> <gap>(?:at|in|on|to) <the>"),
    ("add", 2, r"(put|place|draw|paint|give|show|create|generate|have|want|set|hang|plant|stick|drop|leave|fit|squeeze) (?:\w+ )??<a>"),
    ("replace", 7, r"(?:<removing>|get rid of) <gap>(?:and|then|,) (?:then |instead )?(?:add|put|draw|insert|place|paint|use)"),
    ("replace", 3, r"replac(?:e|ing)|swap|exchange|substitute|switch(?! on| off)|trade"),
    ("replace", 2, r"(change|turn|transform|convert|make|morph|let) <gap>(into|to|become|be) (?:an?|some)"),
    ("replace", 2, r"instead(?: of)?|in place of|in <the> place|becomes?|rather than"),
    ("replace", 2, r"should (?:be|become|turn into) an?|trade|for an?"),
    ("replace", 1.5, r"(make it) an?"),
    ("replace", 2.5, r"(make) <the> (?!<picture>|whole|entire|full)<gap>(look like)"),
    ("relation", 3, r"move|shift|slide|relocate|reposition|drag|push|bring|carry|send|transfer|shove|transport|swap places|switch places"),
    ("relation", 2, r"(goes|go|belongs?|be|comes?|located|positioned|placed|sits?) <spot>"),
    ("relation", 2, r"(put|place|take|set|stand|have|want|let|get|position|drop|leave|stick|locate) <the> <gap><spot>"),
    ("relation", 1, r"to the (?:left|right) of|above|below|beneath|next to|in between|in front of|on top of"),
    ("counting", 3, r"number of|count of|amount of|how many|exactly <number>|twice as many|in total"),
    ("counting", 4, r"(make|turn) (it|them) (?:into )?(<number>)|(there should be|show|have|want|need|give me) (<number>)"),
    ("counting", 4.5, r"(?:only|just) <number>|(?:limit|reduce|increase|raise|lower|cut|down|up) (?:\w+ ){0,6}to <number>"),
    ("counting", 2.5, r"(make|keep|leave|be|are|is|have|has|with|like|want|to) (<number>)|let there be (<number>)"),
    ("counting", 1.5, r"(?!one\b)<number> (?:\w+ ){0,3}?\w+s|^<number>|one more|double|triple|as many"),
    ("action", 2.5, r"(make|let|have|get|turn|rotate|spin|flip|so|should|must|want|needs?|until) (?:<gap>)?(?:to )?(<pose>)"),
    ("action", 2, r"^(?:please )?(?:rotate|spin|flip|mirror|tilt|point|raise|lower|open|close)|upside down|facing|pointing"),
    ("action", 3, r"(look|looks|be|is|feel|feels|an?) (<mood>)|(<mood>) (?:face|expression|look)|(make) <gap>(<mood>)"),
    ("action", 3, r"expression|gesture|pose|mood|a smile|a frown|cheer (?:<gap>)?up|(orient|direct|aim|swivel|twist) <the>"),
    ("action", 2, r"(turn|face|faces|point|points|looks?|aims?) (?:<gap>)?(?:to the )?(up|down|left|right|around|upwards?|downwards?)<end>"),
    ("action", 1.5, r"(faces|points|smiles|sits|stands|runs|jumps|walks|sleeps|waves|looks)|(?:more |now )?(<mood>)<end>"),
    ("attribute", 2, r"color|recolor|repaint|dye|tint|hue"),
    ("attribute", 2, r"(make|turn|paint|change|let|be|is|dye) (?:<gap>)?(?:to )?(<color>)<end>"),
    ("attribute", 2, r"(make|turn|let|give|be|change) (?:<gap>)?(?:to )?(<size>)(?:<end>| size)|resize|enlarge|shrink|scale|stretch"),
    ("attribute", 2, r"(make|turn|let|be|change|cover) (?:<gap>)?(?:to )?(<texture>)<end>|texture|pattern|material|made (?:out )?of"),
    ("attribute", 1.5, r"(in|with|becomes?|turns|gets?|fill) (?:<gap>)?(<color>|<texture>)<end>|stripes|dots|brighter|darker|lighter|shinier|older|younger|thicker|softer"),
    ("attribute", 1, r"(make|turn|change|give|let|adjust|modify|set|fix) <the>(?! (?:<picture>|whole|entire|full|background)(?!\w))"),
    ("background", 5, r"(?<!in the )(?<!on the )(?<!from the )(?<!to the )(?<!into the )(?<!at the )(?:background|backdrop)"),
    ("background", 3.5, r"<replacing> <gap>(in the background|environment|surroundings|setting|scenery|landscape)"),
    ("background", 3.5, r"<replacing> <gap>(to|into|with|in) (?:an? )?(?:\w+ ){0,4}(setting|scene|landscape|cityscape|scenery|<place><end>)"),
    ("background", 3, r"(behind) (?:everything|all|it all|the (?:objects|things|people|subject))"),
    ("background", 0.3, r"(in|on|from|to|into|at) the (background|backdrop)"),
    ("style", 2.5, r"in (?:the|an?) (?:[\w']+ ){0,4}style|(?:the )?style of|the style|(?<!hair )styles?<end>|stylized?|stylised?|restyled?|filter|aesthetic|in the manner of"),
    ("style", 2.5, r"(?:look|mood|feel|vibe|effect) of|an? (?:\w+ ){1,3}(?:look|feel|vibe|effect|atmosphere)"),
    ("style", 2, r"(?:look|looks|looking|appear) (?:more )?(?:like|as if|as though)"),
    ("style", 1.5, r"(<look>)"),
    ("style", 3, r"(<change>|apply) (<whole>) (?:in|into|to|as|look|an?)(?! <number> \w+s)"),
    ("style", 3, r"(<whole>) (becomes?|into|as|should (?:look|be|become))"),
    ("style", 1, r"(<change>) (it|this) (?:in|into|to|as|look|an?)(?! <number>)|(<change>) (this) (?:an? )?(<look>)"),
    ("style", 3, r"(<change>|give) (<whole>|it) (?:a |an |look |much |more |a bit |slightly )*(?:brighter|darker|warmer|cooler|vivid|vibrant)"),
    ("style", 3, r"brightness|contrast|saturation|desaturate|exposure|color grading|white balance|sharpen|overall|(change|adjust|fix|improve|correct) the (lighting)"),
    ("style", 7, r"(<removing>|drop|drain|strip|take out|take away) (?:all )?(?:of )?(?:the )?(colors?)(?! of)"),
    ("reference", 2, r"reference|(?:second|other|example|sample|attached) (?:picture|photo|image)"),
)  # fmt: skip

RULES: tuple[Rule, ...] = tuple(Rule(kind, weight, _pattern(text)) for kind, weight, text in _TABLE)
"""Every rule, in no order that matters."""

_STOP = r"(?= (?:and|while|then|but|when|into|to look|look|looks|becomes?|turns?|should|must|as an?|,)(?!\w)|$)"
# What follows a protecting word, up to the end of its clause.
_CLAUSE = rf"(?: [\w']+)*?{_STOP}"

ALL_BUT = _pattern(
    r"(?:everything|all|anything|<whole>)(?: (?:in|on|around) <the> <picture>)? (but|except(?: for)?|apart from|other than)"
    rf"(?! (?:keep|leave|preserve|protect|do|not|with|without))(?: [\w']+)+?{_STOP}"
)
"""Protects one thing and says at the same time that the edit is for all the rest."""

PROTECTING: tuple[re.Pattern[str], ...] = tuple(
    _pattern(text)
    for text in (
        # "keep only" and "leave out" remove.
        (
            r"(keep|keeps|keeping|preserv(?:e|es|ing)|protect(?:s|ing)?|retain(?:s|ing)?|spare|maintain(?:s|ing)?|leav(?:e|ing))"
            rf"(?! (?:[\w']+ ){{0,5}}(?:out|off|only|nothing)(?!\w)){_CLAUSE}"
        ),
        rf"(not|never|without)(?: to)? (<changing>){_CLAUSE}",
        rf"(except|excluding|apart from|aside from|other than|save for|besides)(?: for)?{_CLAUSE}",
        rf"(but|though|just|only|and) not <the>(?= ){_CLAUSE}",
        rf"(but) <the>(?= ){_CLAUSE}",
        rf"(ignor(?:e|ing)|skip(?:ping)?|exclud(?:e|ing)|freez(?:e|ing)|exempt(?:ing)?|sparing|sav(?:e|ing)|outside|around) <the>(?= ){_CLAUSE}",
        rf"(nothing) (?:must |should |may )?(?:happens?|changes?) (?:to|about|on|with|in) <the>(?= ){_CLAUSE}|(no changes?) to{_CLAUSE}",
        r"(preserved|kept|protected|spared|excluded|exempt|left alone|left as|as before|like before|the same as before)",
        r"(unchanged|untouched|unaffected|intact|unaltered|unmodified|as (?:it|they|he|she) (?:is|are|was|were)|as is)",
        r"(stay(?:s|ing)?|remain(?:s|ing)?|be the same)(?: exactly| just)?(?: the same| as| put)?",
    )
)
"""Phrases that say what must stay; each match is one clause."""

GENERIC = _pattern(r"rest|else|others?|everything|background|surroundings|remaining")
"""Names that no object has: "keep the rest" guards any edit and asks for no special care."""
