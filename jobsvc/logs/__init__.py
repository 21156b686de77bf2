"""F3: the daemon's own log: one line an event, as JSON or for people, with nothing in it that a reader must fear.

`lines` makes the line, `text` makes it harmless, `sink` writes it off the reactor, `takeover` puts it in the place of
what twistd and twist would write.
"""
