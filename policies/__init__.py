"""The decision library: fleets and policies in, decisions out.

Pure by construction (and by an architecture test): no I/O, no clock, no Ray, no global random. Whoever calls
it brings the file's text, the environment, the time and the seed as arguments.
"""
