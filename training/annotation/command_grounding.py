"""Whether what is said of an episode is about what its instruction is about: its things, their roles and its action.

Rules for English texts over the words of `object_words.yaml`: only a thing that is listed, and that can't be what the
instruction names, is held against a text. So a rewriting in other words passes, and what is rejected is rejected for a
word that the message shows.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from instructvla.training.annotation.command_words import after_opening, base_verb, words
from instructvla.training.annotation.object_words import Mention, has_kind, is_kind, is_shape, mentions, opposite_verbs

# What the robot says before it says what it does.
LEAD = re.compile(
    r"\b(?:i|we)(?:'ll| will| shall| should| can| must| am going to|'m going to| need to| have to)\b|\blet me\b"
)
SENTENCE = re.compile(r"[.!?;:]+")
CHAINED = re.compile(
    r"\b(?:and then|then|after that|afterwards?|after which|followed by|subsequently|thereafter|"
    r"before (?:i|putting|placing|moving))\b"
)
ROLES, OTHER = ("objects", "goals", "sources", "instruments"), "other"
PRONOUNS = {"it", "them", "one", "this", "that"}
PARTICLES = {"up", "down", "on", "off", "out", "over", "in", "away", "back"}
# Prepositions of several words, and one that says the same of a role.
JOINED = (
    (re.compile(r"\b(?:next|close|adjacent) to\b"), "near"),
    (re.compile(r"\b(?:out of|away from|off of)\b"), "from"),
    (re.compile(r"\bon top of\b"), "on"),
    (re.compile(r"\bin front of\b"), "near"),
    (re.compile(r"\b(?:(?:to|on|at) the )?(?:left|right|back|front)(?: hand)?(?: side)? of\b"), "near"),
    (re.compile(r"\b(?:(?:in|into|to|at|on) the )?(?:middle|center|centre|edge|corner|top|bottom) of\b"), "on"),
    (re.compile(r"\bover to\b"), "to"),
)
SOURCES = {"from", "off", "out"}
GOALS = {"to", "into", "onto", "toward", "towards", "atop", "upon"}
PLACES = {
    "in",
    "on",
    "inside",
    "near",
    "beside",
    "under",
    "underneath",
    "beneath",
    "below",
    "behind",
    "above",
    "over",
    "between",
}
INSTRUMENTS = {"with", "using"}
OTHERS = {"by", "at", "about", "along", "through", "across", "around", "against", "for", "without"}
GROUND = ("table",)  # under everything: what is taken from a bowl is taken from the table too
# What follows belongs to no role.
ENDS = {
    "because",
    "since",
    "so",
    "which",
    "that",
    "while",
    "when",
    "if",
    "after",
    "before",
    "until",
    "as",
    "where",
    "who",
}
TAKING = {
    "pick",
    "grab",
    "grasp",
    "lift",
    "take",
    "hold",
    "fetch",
    "get",
    "retrieve",
    "collect",
    "seize",
    "raise",
    "remove",
    "extract",
    "hand",
    "give",
    "withdraw",
    "select",
    "find",
}  # where a thing is, is not where it goes
PLACING = {
    "put",
    "place",
    "set",
    "lay",
    "drop",
    "deposit",
    "insert",
    "position",
    "move",
    "bring",
    "transfer",
    "stack",
    "leave",
    "store",
    "add",
    "return",
    "hang",
}
NEGATION = re.compile(r"\b(?:not|no|never|without|except|instead|rather|neither|nor|but|other than|\w+n't)\b")


@dataclass(frozen=True)
class Clause:
    """One command.

    Args:
        verb: its base form.
        objects: what is acted on.
        goals: where it goes.
        sources: where it comes from.
        instruments: with what.
        holds_pronoun: whether what is acted on is "it" or the like.
    """

    verb: str
    objects: tuple[Mention, ...] = ()
    goals: tuple[Mention, ...] = ()
    sources: tuple[Mention, ...] = ()
    instruments: tuple[Mention, ...] = ()
    holds_pronoun: bool = False


@dataclass(frozen=True)
class Meaning:
    """What a text tells to do: its commands, and everything that it names."""

    clauses: tuple[Clause, ...]
    named: tuple[Mention, ...]

    def of_role(self, role: str) -> tuple[Mention, ...]:
        """ "objects", "goals", "sources" or "instruments" of all its commands."""
        return tuple(mention for clause in self.clauses for mention in getattr(clause, role))


def meaning(text: str) -> Meaning:
    """Of a command, such as an instruction."""
    plain = joined(text)
    return Meaning(tuple(clauses(plain)), tuple(mentions(words(plain))))


def promised(answer: str) -> str | None:
    """What the robot says that it will do; None where it doesn't say."""
    parts = [promise for sentence in SENTENCE.split(joined(answer)) if (promise := after_lead(sentence))]
    return ". ".join(parts) or None


def after_lead(sentence: str) -> str | None:
    found = list(LEAD.finditer(sentence))
    return sentence[found[0].end() :].strip() if found else None


def joined(text: str) -> str:
    """In lower case, each preposition one word."""
    plain = text.lower().replace("’", "'")
    for pattern, word in JOINED:
        plain = pattern.sub(word, plain)
    return plain


def clauses(plain: str) -> Iterator[Clause]:
    """The commands of a text; what follows "and" or a comma without a verb of its own belongs to the one before."""
    for sentence in SENTENCE.split(plain):
        waiting: list[str] = []
        for piece in re.split(r",|\band\b|\bthen\b|\bbut\b|\bor\b", LEAD.sub(" , ", sentence)):
            tokens = after_opening(words(piece))
            if tokens and base_verb(tokens[0]) is not None:
                if waiting:
                    yield clause_of(waiting)
                waiting = tokens
            elif waiting:
                waiting += ["and", *tokens]
        if waiting:
            yield clause_of(waiting)


def clause_of(tokens: Sequence[str]) -> Clause:
    """The clause of the words from a verb on, whose noun phrases have the roles that the prepositions tell."""
    verb, rest = base_verb(tokens[0]) or "", list(tokens[1:])
    roles: dict[str, list[Mention]] = {role: [] for role in (*ROLES, OTHER)}
    holds_pronoun = False
    for role, phrase in phrases(verb, rest[1:] if rest and rest[0] in PARTICLES else rest):
        roles[role] += mentions(phrase)
        holds_pronoun |= role == "objects" and not PRONOUNS.isdisjoint(phrase)
    return Clause(verb, *(tuple(roles[role]) for role in ROLES), holds_pronoun)


def phrases(verb: str, tokens: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Role and words of each noun phrase, up to where another sentence begins."""
    role, phrase = OTHER if verb == "use" else "objects", []
    for place, token in enumerate(tokens):
        if token in ENDS or (token == "to" and any(map(base_verb, tokens[place + 1 : place + 2]))):
            break
        new = OTHER if token == "of" and mentions(phrase) else role_of(token, verb)
        if new is None:
            phrase.append(token)
        else:
            yield role, phrase
            role, phrase = new, []
    yield role, phrase


def role_of(token: str, verb: str) -> str | None:
    """The role of what follows a preposition; None for another word."""
    if token in SOURCES:
        return "sources"
    if token in GOALS:
        return "goals"
    if token in PLACES:
        return OTHER if verb in TAKING else "goals"
    if token in INSTRUMENTS:
        return "instruments"
    return OTHER if token in OTHERS else None


def count_actions(text: str, is_placing: bool) -> int:
    """How many actions one after the other a command has.

    Args:
        is_placing: whether picking a thing up and placing "it" count as one.
    """
    told = list(clauses(joined(text)))
    count = len(told)
    for first, second in zip(told, told[1:], strict=False):
        count -= is_placing and first.verb in TAKING and second.verb in PLACING and second.holds_pronoun
    return max(count, 1) + len(CHAINED.findall(joined(text)))


def only_takes(told: Meaning) -> bool:
    """Whether an instruction ends with the thing in the hand."""
    return bool(told.clauses) and all(clause.verb in TAKING and not clause.goals for clause in told.clauses)


def undoes(text: str, instruction: str) -> str | None:
    """The verb of a command that undoes what the instruction says, or None."""
    said, told = without_states(joined(text)), without_states(joined(instruction))
    if NEGATION.search(said) or NEGATION.search(told):
        return None
    for pair in opposite_verbs():
        for one, other in (pair, pair[::-1]):
            if one.search(told) and not other.search(told) and (found := other.search(said)) and not one.search(said):
                return found[0]
    return None


def without_states(plain: str) -> str:
    """Without what only says how a thing is: "the open drawer"."""
    return re.sub(r"\b(the|an|a|this|that) (?:open|opened|closed|folded|locked|unfolded)\b(?= \w)", r"\1", plain)


def other_object(said: Meaning, told: Meaning, is_reworded: bool) -> Mention | None:
    """A thing that is acted on and can't be what the instruction acts on, or None.

    Args:
        said: what the text means.
        told: what the instruction means.
        is_reworded: whether the text describes things in other words, and may name others to tell which; else all
            that it acts on must fit.
    """
    objects = told.of_role("objects")
    wanted = (*objects, *told.of_role("instruments")) if objects else told.named
    acted_on = said.of_role("objects")
    if is_reworded:
        return misfit(acted_on, wanted, is_reworded)
    return next(filter(None, (misfit([mention], wanted) for mention in acted_on)), None)


def other_goal(said: Meaning, told: Meaning, is_reworded: bool) -> Mention | None:
    """A place that things go to, or come from, and that can't be the instruction's, or None; see `other_object`."""
    goals, sources = said.of_role("goals"), said.of_role("sources")
    told_goals, told_sources = told.of_role("goals"), told.of_role("sources")
    if (wrong := misfit(goals, told_goals, is_reworded)) is not None:
        return wrong
    if (wrong := misfit([one for one in sources if one.noun not in GROUND], told_sources, is_reworded)) is not None:
        return wrong
    if told_sources and not told_goals:
        return next((mention for mention in goals if any(map(mention.may_be, told_sources))), None)
    if told_goals and not told_sources and not goals:
        return next((mention for mention in sources if any(map(mention.may_be, told_goals))), None)
    return None


def misfit(said: Sequence[Mention], wanted: Sequence[Mention], is_reworded: bool = False) -> Mention | None:
    """The first of those said, if none of them can be one of those wanted."""
    if not said or not wanted or any(fits(mention, one, is_reworded) for mention in said for one in wanted):
        return None
    return said[0]


def fits(mention: Mention, wanted: Mention, is_reworded: bool) -> bool:
    """Whether a word can mean a thing; that of a kind ("tool") may mean what belongs to no kind that is listed."""
    if mention.may_be(wanted) or (is_kind(mention.noun) and not has_kind(wanted.noun)):
        return True
    return is_reworded and is_shape(mention.noun) and not is_shape(wanted.noun)
