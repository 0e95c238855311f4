"""What an application's sockets say, as documents: made of the hints in its code."""
