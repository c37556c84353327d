"""Where a server is, how long its replies may be, and how long it asks to wait. No network."""

import json
import math
import os
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from suite.common.errors import UserError
from suite.judges.judging import shown

DEFAULT_URL = "https://api.openai.com/v1"
MOST_TOKENS = 10_000_000
LONGEST_WAIT_S = 600.0


def longest_reply(parameters: Mapping[str, Any]) -> int:
    """Tokens that a reply may have, 0 if there is no limit. Raises UserError for parameters that no request can hold."""
    try:
        json.dumps(parameters, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"--parameters: cannot be sent as JSON ({shown(error)})") from None
    given = {name: parameters[name] for name in ("max_tokens", "max_completion_tokens") if name in parameters}
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_TOKENS:
            raise UserError(f"--parameters, {name}: expected a whole number from 1 to {MOST_TOKENS}, got {shown(value, 40)}")
    return max(given.values(), default=0)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, from `retry-after-ms` or `retry-after` (a number or a date); at most ten minutes. None if it says nothing."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        said = headers.get(name, "")
        try:
            seconds = float(said) / unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(said).timestamp() - time.time()
            except (ValueError, OverflowError):
                continue
        if math.isfinite(seconds):
            return min(max(seconds, 0.0), LONGEST_WAIT_S)
    return None


def server_address() -> str:
    """Address without credentials, query or slash at the end."""
    given = os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
    try:
        parts = urlsplit(given)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError("OPENAI_BASE_URL: expected an address like http://localhost:8000/v1")
    return f"{parts.scheme}://{parts.hostname}{f':{port}' if port else ''}{parts.path.rstrip('/')}"
