# The twin has the very types of what it stands for.
from .counts import Counts as Counts
from .counts import clock as clock
from .queue import Allowance as Allowance
from .queue import Queue as Queue
from .queue import add_to_all as add_to_all
from .queue import flush_ready as flush_ready
from .queue import held as held
from .queue import receive as receive
