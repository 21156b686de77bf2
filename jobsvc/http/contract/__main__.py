"""Prints the OpenAPI document as docs/openapi.json holds it: `python -m jobsvc.http.contract > docs/openapi.json`."""

from __future__ import annotations

import sys

from jobsvc.http.contract.document import printed
from jobsvc.http.contract.served import contract

sys.stdout.write(printed(contract().document()))
