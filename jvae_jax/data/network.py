"""Is there a network? Asked before tensorflow-datasets is, which takes minutes to say no."""

import threading
import urllib.request

_SECONDS = 5.0


def unreachable(url: str) -> str | None:
    """Why ``url`` can't be fetched, in a few words, or None if it can; found in 5 seconds."""
    # A thread, since no time-out covers the look-up of a host's name.
    answer = [f"no answer within {_SECONDS:g} seconds"]

    def ask() -> None:
        try:
            request = urllib.request.Request(url, method="HEAD")
            with urllib.request.urlopen(request, timeout=_SECONDS):
                answer[0] = ""
        except OSError as error:
            answer[0] = str(getattr(error, "reason", error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    return answer[0] or None
