"""The terms and names that stand on a page, with one line on each."""

from collections.abc import Sequence

from wemem.config.catalogue import catalogue
from wemem.config.glossary import GLOSSARY
from wemem.results.arms import Arm
from wemem.signals import WEIGHTS_HELD


def terms_of(rows: Sequence[Arm]) -> dict[str, str]:
    """The glossary, and the attacks and defenses of the arms that a study can name."""
    known = catalogue()
    used = {attack.removesuffix(WEIGHTS_HELD): known["attacks"] for arm in rows for attack in arm.attacks}
    used |= {part: known["defenses"] for arm in rows for part in arm.defense.split("+")}
    in_glossary = {term.casefold() for term in GLOSSARY}
    names = {one: lines[one] for one, lines in used.items() if one in lines and one.casefold() not in in_glossary}
    return dict(sorted((GLOSSARY | names).items(), key=lambda item: item[0].casefold()))
