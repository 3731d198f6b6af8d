"""What the stories of all papers share: verdicts in words, and a picture that exists."""

from collections.abc import Iterable, Sequence
from typing import Any

from lowland.results import Claim

__all__ = ["picture", "said", "values_of", "verdicts"]


def verdicts(claims: Sequence[Claim], *names: str, of: int = 1) -> str:
    """The verdicts on the claims that a sentence is about.

    Args:
        claims: All claims of a recipe.
        *names: Their names.
        of: Networks that the verdict is about, where the sentence is about the first only.

    Returns:
        For instance ``" (C2: met; C6: missed)"``, to stand behind the sentence.
    """
    known = {claim.id: claim.verdict for claim in claims}
    words = "; ".join(f"{name}: {known[name]}" for name in names)
    return f" ({words}{f', of all {of} such networks' if of > 1 else ''})"


def values_of(claims: Sequence[Claim], name: str) -> tuple[Any, ...]:
    """The numbers that a claim was judged by.

    Args:
        claims: All claims of a recipe.
        name: The claim's.

    Returns:
        Its values.
    """
    return next(claim.values for claim in claims if claim.id == name)


def picture(figures: Iterable[dict[str, Any]], *wanted: str) -> str:
    """The picture that tells a story, among those that were drawn.

    Args:
        figures: All figures of a recipe.
        *wanted: Their names, the best one first; a name that ends with a dash stands for all that
            begin with it.

    Returns:
        The name of the first one that exists, else that of the first figure.
    """
    drawn = [figure["id"] for figure in figures]
    for name in wanted:
        for one in drawn:
            if one == name or (name.endswith("-") and one.startswith(name)):
                return one
    return drawn[0]


def said(*sentences: str | None) -> list[str]:
    """The sentences that something was measured for.

    Args:
        *sentences: In order; None where a scale leaves a part out.

    Returns:
        The sentences, or one that says that nothing was measured.
    """
    found = [sentence for sentence in sentences if sentence]
    return found or ["Nothing that this story is about was measured at this scale."]
