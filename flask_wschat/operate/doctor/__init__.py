"""What is wrong with a set-up, and the remedy: ``flask wschat doctor``.

A file for each theme. In each, kinds of findings are said first, as ``Kind``, and then
looked for, by functions that yield them; ``examining`` has the list of all. Nothing is
changed by a look, and each has a deadline. See docs/operate/doctor.md.
"""
