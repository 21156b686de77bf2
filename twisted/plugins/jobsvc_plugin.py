"""The ``jobsvc`` command of twistd and twist.

It names ``jobsvc.tap`` by string: both launchers read every plugin before they choose a reactor, so nothing
of ours may load until the command is chosen.
"""

from twisted.application.service import ServiceMaker

jobsvc = ServiceMaker(
    "jobsvc",
    "jobsvc.tap",
    "A job daemon: submit work over HTTP, poll or stream the result.",
    "jobsvc",
)
