"""What the program can say, read from its sources: string literals, and the messages that are put together from them.

A message is C++ such as `"pgchaperone: " + what + " was denied"`; here it is `pgchaperone: … was denied`, with an
ellipsis for whatever is not written down.
"""

import functools
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


@functools.lru_cache(maxsize=None)
def _tokens(text: str) -> tuple:
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
    return tuple(out)


def _files(parts) -> list:
    return [file for part in parts for pattern in ("*.cpp", "*.h") for file in sorted((ROOT / part).rglob(pattern))]


def literals(parts=ALL_PARTS) -> list:
    """Every string literal."""
    return [text for file in _files(parts) for kind, text in _tokens(file.read_text()) if kind == "literal"]


def _expression_at(tokens: list, at: int):
    """Place, kind, text and depth in brackets of what stands there, up to the comma, semicolon or bracket behind it."""
    depth = 0
    for place in range(at, len(tokens)):
        kind, text = tokens[place]
        if kind == "other" and text in "([{":
            depth += 1
        elif kind == "other" and text in ")]}":
            depth -= 1
            if depth < 0:
                return
        elif kind == "other" and text in ",;" and depth == 0:
            return
        yield place, kind, text, depth


def _message_at(tokens: list, at: int) -> str:
    message = ""
    for _, kind, text, depth in _expression_at(tokens, at):
        if depth == 0 and kind == "literal" and message and text.startswith("pgchaperone: "):
            return message.removesuffix(GAP)  # the other branch of a condition, a message of its own
        if depth == 0 and kind == "literal":
            message += text
        elif not (kind == "other" and text == "+") and not message.endswith(GAP):
            message += GAP
    return message


# What is wrong with what came there is told to the client, behind the prefix.
_PREFIXED = ("proxy/net/proxy_header.cpp",)


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


@functools.lru_cache(maxsize=None)
def messages(parts=CLIENT_PARTS) -> dict:
    """What clients are told: message -> file."""
    found = {}
    for file in _files(parts):
        tokens = _tokens(file.read_text())
        for at in _told(tokens):
            found.setdefault(_message_at(tokens, at).strip(), str(file.relative_to(ROOT)))
    for name in _PREFIXED:
        for message in _told_to_operators(_tokens((ROOT / name).read_text()), False):
            found.setdefault("pgchaperone: " + message, name)
    return found


# What whoever runs the program is told, at the start or in the log, goes through one of these.
_TELLING = {"wrong": "(", "notice": "(", "runtime_error": "(",
            "OpenError": "{", "KeyError": "{", "HandOverProblem": "{"}
# Here functions return their problem as text.
_RETURNING = ("proxy/net/hand_over.cpp", "proxy/net/tls_context.cpp")


def _arguments_at(tokens: list, at: int) -> list:
    """Where each argument begins of the call whose opening bracket is before `at`, and where the last one ends."""
    starts, depth = [at], 0
    for here in range(at, len(tokens)):
        kind, text = tokens[here]
        if kind != "other":
            continue
        if text in "([{":
            depth += 1
        elif text in ")]}":
            depth -= 1
            if depth < 0:
                return starts + [here + 1]
        elif text == "," and depth == 0:
            starts.append(here + 1)
    return starts + [len(tokens)]


def _alternatives_at(tokens: list, at: int) -> list:
    """The message, or both where a condition chooses between two."""
    end = at
    branches = [at]
    for place, kind, text, depth in _expression_at(tokens, at):
        end = place + 1
        if kind == "other" and text == "?" and depth == 0:
            branches = [place + 1]
        elif kind == "other" and text == ":" and depth == 0 and ":" not in (tokens[place - 1][1], tokens[place + 1][1]):
            branches.append(place + 1)
    ends = [start - 1 for start in branches[1:]] + [end]
    return [_message_at(tokens[start:stop], 0) for start, stop in zip(branches, ends)]


def _unwrapped(tokens: tuple) -> list:
    """A literal in std::string(...) is a literal."""
    out = []
    for token in tokens:
        out.append(token)
        if [t for _, t in out[-7:-2]] == ["std", ":", ":", "string", "("] and token == ("other", ")") and \
                out[-2][0] == "literal":
            out[-7:] = [out[-2]]
    return out


def _told_to_operators(tokens: list, returning: bool):
    for at, (kind, text) in enumerate(tokens):
        if kind != "word":
            continue
        following = [t for _, t in tokens[at + 1:at + 5]]
        if text in _TELLING and following[:1] == [_TELLING[text]]:
            yield from _alternatives_at(tokens, at + 2)
        elif text == "spdlog" and following[:2] == [":", ":"] and following[2] in ("warn", "error", "critical"):
            for message in _alternatives_at(tokens, at + 5):
                yield re.sub(r"\{[^{}]*\}", GAP, message)
        elif text == "Log" and following[:3] == ["{", "LogLevel", ":"] and tokens[at + 5][1] in ("warning", "error"):
            yield from _alternatives_at(tokens, at + 7)
        elif returning and text == "return" and \
                "literal" in (tokens[at + 1][0], following[1] == "+" and tokens[at + 3][0]):
            yield from _alternatives_at(tokens, at + 1)


def _inconsistencies(tokens: list):
    """out.push_back({key, what is wrong, what to do})."""
    for at, (kind, text) in enumerate(tokens):
        if (kind, text) == ("word", "push_back") and [t for _, t in tokens[at + 1:at + 3]] == ["(", "{"]:
            yield from _alternatives_at(tokens, _arguments_at(tokens, at + 3)[1])


@functools.lru_cache(maxsize=None)
def notes(parts=ALL_PARTS) -> dict:
    """What whoever runs the program is told, at the start or in the log: message -> file."""
    found = {}
    for file in _files(parts):
        name = str(file.relative_to(ROOT))
        if name in _PREFIXED:
            continue
        tokens = _unwrapped(_tokens(file.read_text()))
        told = list(_told_to_operators(tokens, name in _RETURNING))
        if ("word", "Inconsistency") in tokens:
            told += _inconsistencies(tokens)
        for message in told:
            found.setdefault(message.strip(), name)
    return found


def sqlstates(parts=CLIENT_PARTS) -> dict:
    """SQLSTATEs that are written down: code -> file."""
    found = {}
    for file in _files(parts):
        for kind, text in _tokens(file.read_text()):
            if kind == "literal" and re.fullmatch(r"(?:[0-9]{2}|0A|0Z|2D|3D|F0|XX)[0-9A-Z]{3}", text):
                found.setdefault(text, str(file.relative_to(ROOT)))
    return found
