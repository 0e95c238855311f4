"""What somebody types to make a poll."""

from __future__ import annotations

from flask import request

from . import Refused
from .language import _
from .who import can_be_seen, one_line

MOST_OPTIONS = 8


def line(text: str, longest: int) -> str:
    """Return ``text`` as it is shown: one line, of characters that can be seen."""
    text = one_line(text)
    if len(text) > longest:
        raise Refused(
            _("It has {n} characters, and {longest} fit.", n=len(text), longest=longest)
        )
    if not can_be_seen(text):
        raise Refused(_("It has characters that cannot be shown."))
    return text


class Form:
    """A poll as it was typed, and what is wrong with it, beside the field."""

    def __init__(self) -> None:
        self.question = request.form.get("question", "")
        # One more than fit, to say so; whoever sends thousands gets no page of them.
        self.options = request.form.getlist("option")[: MOST_OPTIONS + 1]
        self.options += [""] * (2 - len(self.options))
        self.hide = "hide" in request.form
        self.errors: dict[str | int, str] = {}  # of the question, of each option

    def check(self) -> list[str]:
        """Return the options, blank ones left out; the question is then as it is shown.

        What is wrong is in ``errors``.
        """
        try:
            self.question = line(self.question, 140)
            if not self.question:
                raise Refused(_("What is the question?"))
        except Refused as refused:
            self.errors["question"] = str(refused)
        options: dict[str, str] = {}
        for number, typed in enumerate(self.options):
            try:
                option = line(typed, 80)
                if option.casefold() in options:
                    raise Refused(_("You have this one above."))
                if option:
                    options[option.casefold()] = option
            except Refused as refused:
                self.errors[number] = str(refused)
        if len(options) < 2 and not self.errors.keys() - {"question"}:
            blank = next(i for i, text in enumerate(self.options) if not text.strip())
            self.errors[blank] = _("Give at least two choices.")
        if len(options) > MOST_OPTIONS:
            self.errors[MOST_OPTIONS] = _("Eight choices are the most.")
        return [*options.values()]
