"""The body of an endpoint's answer as it comes: server-sent events, or one JSON document."""

import codecs
from collections.abc import Iterable, Iterator


def documents(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield the data of each server-sent event (WHATWG HTML, section 9.2.6) once it is complete.

    A body without any event is yielded as a whole at its end: not every server streams what it is asked to stream.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    whole, line, data, seen = "", "", list[str](), False
    for chunk in chunks:
        text = decoder.decode(chunk)
        whole += "" if seen else text
        *lines, line = (line + text).split("\n")
        for each in (each.rstrip("\r") for each in lines):
            if each.startswith("data:"):
                data.append(each.removeprefix("data:").removeprefix(" "))
            elif not each and data:
                seen = True
                yield "\n".join(data)
                data = []
    if line.startswith("data:"):
        data.append(line.removeprefix("data:").strip())
    if data:
        yield "\n".join(data)
    elif not seen:
        yield whole
