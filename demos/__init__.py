"""The demos of ``example_app.py``, a file for each; ``chat`` is what they share.

who        who somebody is: a name in the session's cookie
language   English or Chinese
hall       what all answers have, and the way in for phones
home       the first page, and who is where
vote       the live vote
vote_form  what somebody types to make a poll
talk       the group chat
private    the private chat
bot        a question, and an answer that grows for everybody
plug       what breaks there, at the push of a button
panes      two windows that count what comes meanwhile
protocol   what passes on a socket, shown byte by byte
byhand     a client that sends whatever bytes it is told to
live       how the demos go, for this machine's own browsers
wire       what passes between a browser and the server, watched and spoilt
"""

from __future__ import annotations

from flask_wschat import WSChat

chat = WSChat()


class Refused(PermissionError):
    """What cannot be done, in words for who asked for it: an entry of ``words/``."""
