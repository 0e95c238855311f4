# The twin has the very types of what it stands for.
from .frames import FrameParser as FrameParser
from .frames import apply_mask as apply_mask
from .frames import encode_frame as encode_frame
from .frames import encode_message as encode_message
