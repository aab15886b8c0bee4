"""What the program can say, read from its sources: string literals, and the messages that are put together from them.

A message is C++ such as `"pgchaperone: " + what + " was denied"`; here it is `pgchaperone: … was denied`, with an
ellipsis for whatever is not written down.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GAP = "…"
# What clients are told is made here; what who starts the program is told, everywhere.
CLIENT_PARTS = ("proxy", "policy", "approval")
ALL_PARTS = CLIENT_PARTS + ("audit", "cli", "config", "protocol", "web", "webhook")

_TOKEN = re.compile(r"""
    (?P<comment> //[^\n]* | /\*.*?\*/ )
  | R"(?P<mark>[^(\s]*)\((?P<raw>.*?)\)(?P=mark)"
  | "(?P<literal>(?:[^"\\\n]|\\.)*)"
  | (?P<character>'(?:[^'\\\n]|\\.)+')
  | (?P<space>\s+)
  | (?P<word>[A-Za-z0-9_]+(?:'[0-9]+)*)
  | (?P<other>.)
""", re.VERBOSE | re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "0": "\0"}


def _unescaped(literal: str) -> str:
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m.group(1), m.group(1)), literal)


def _tokens(text: str) -> list:
    """(kind, text) of each token; neighbouring literals are one, as they are to the compiler."""
    out = []
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if match.group("literal") is not None or match.group("raw") is not None:
            value = match.group("raw") if match.group("literal") is None else _unescaped(match.group("literal"))
            if out and out[-1][0] == "literal":
                out[-1] = ("literal", out[-1][1] + value)
            else:
                out.append(("literal", value))
        elif kind not in ("comment", "space"):
            out.append((kind, match.group()))
    return out


def _files(parts) -> list:
    return [file for part in parts for pattern in ("*.cpp", "*.h") for file in sorted((ROOT / part).rglob(pattern))]


def literals(parts=ALL_PARTS) -> list:
    """Every string literal."""
    return [text for file in _files(parts) for kind, text in _tokens(file.read_text()) if kind == "literal"]


def _message_at(tokens: list, at: int) -> str:
    message, depth = "", 0
    while at < len(tokens):
        kind, text = tokens[at]
        if kind == "other" and text in "([{":
            depth += 1
        elif kind == "other" and text in ")]}":
            depth -= 1
            if depth < 0:
                break
        elif kind == "other" and text in ",;" and depth == 0:
            break
        if depth == 0 and kind == "literal" and message and text.startswith("pgchaperone: "):
            return message.removesuffix(GAP)  # the other branch of a condition, a message of its own
        if depth == 0 and kind == "literal":
            message += text
        elif not (kind == "other" and text == "+") and not message.endswith(GAP):
            message += GAP
        at += 1
    return message


def _told(tokens: list):
    """Where a message for clients begins: whole ones, and those that get their prefix elsewhere."""
    for at, (kind, text) in enumerate(tokens):
        if kind == "literal" and text.startswith("pgchaperone: "):
            yield at
        following = tokens[at + 1:at + 4]
        if kind == "word" and text in ("refusal_of", "refused") and len(following) == 3 and \
                following[0] == ("other", "(") and following[1][0] == "literal":
            yield at + 4
        if kind == "word" and text == "Problem" and [t for _, t in tokens[at + 1:at + 3]] == [":", ":"] and \
                tokens[at + 4:at + 5] == [("other", ",")] and tokens[at + 5:at + 6] and tokens[at + 5][0] == "literal":
            yield at + 5


def messages(parts=CLIENT_PARTS) -> dict:
    """What clients are told: message -> file."""
    found = {}
    for file in _files(parts):
        tokens = _tokens(file.read_text())
        for at in _told(tokens):
            found.setdefault(_message_at(tokens, at).strip(), str(file.relative_to(ROOT)))
    return found


def sqlstates(parts=CLIENT_PARTS) -> dict:
    """SQLSTATEs that are written down: code -> file."""
    found = {}
    for file in _files(parts):
        for kind, text in _tokens(file.read_text()):
            if kind == "literal" and re.fullmatch(r"(?:[0-9]{2}|0A|0Z|2D|3D|F0|XX)[0-9A-Z]{3}", text):
                found.setdefault(text, str(file.relative_to(ROOT)))
    return found
