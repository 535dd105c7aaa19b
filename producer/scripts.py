"""Lua scripts: loaded from the package, called by their hash, and loaded into Redis again when it has lost them.

A script file begins with its KEYS, ARGV, returns and invariant. A line `-- prelude: NAME ...` puts those files before the
script, so that scripts share local functions. A line `-- flags: ...` sets Redis's script flags. Every script is
idempotent, so a call may be resent after a lost reply. All scripts begin with Redis 7's `#!lua`: a full Redis then refuses
a script before it starts, not in the middle. Scripts with `allow-oom` are never refused, so that running jobs can end.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any, cast

import redis
import redis.asyncio
from redis.exceptions import NoScriptError, ResponseError

from producer.redis_server.round_trip import round_trip, round_trip_async

Word = str | bytes | int | float
PRELUDES = Path(__file__).parent / "lua" / "shared"


@dataclass(frozen=True)
class Script:
    """One Lua script with its preludes, and its SHA-1, by which Redis calls it."""

    text: str
    sha: str

    @classmethod
    def load(cls, folder: Path, name: str) -> Script:
        text = (folder / f"{name}.lua").read_text()
        header = dict(re.findall(r"^-- (prelude|flags): (.*)$", text, flags=re.MULTILINE))
        for prelude in reversed(header.get("prelude", "").split()):
            path = folder / f"{prelude}.lua"
            text = (path if path.exists() else PRELUDES / path.name).read_text() + text
        text = f"#!lua flags={header['flags']}\n{text}" if "flags" in header else f"#!lua\n{text}"
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())

    def call(self, keys: Sequence[str], args: Sequence[Word]) -> Call:
        return Call(self, ("EVALSHA", self.sha, len(keys), *keys, *args))


@dataclass(frozen=True)
class Call:
    """A script with its keys and arguments, not yet sent."""

    script: Script
    words: tuple[Word, ...]


@dataclass(frozen=True)
class Part:
    """What one of many asks of a script that answers for each of them. Parts that are sent in one round trip and have the
    same script, `shared_keys` and `shared_args` go in one call, and each gets its element of the reply, or the error of
    the whole. The call goes where the last of them stands, so a part may be executed after commands that follow it.
    """

    script: Script
    shared_keys: tuple[str, ...]
    shared_args: tuple[Word, ...]
    keys: tuple[str, ...]
    args: tuple[Word, ...]

    @property
    def words(self) -> tuple[Word, ...]:
        """What is sent for this part alone."""
        return (*self.keys, *self.args)


PARTS_AT_MOST = 50  # of one call, so that it blocks Redis for a few milliseconds
Command = Call | Part | tuple[Word, ...]
_Sendable = Call | tuple[Word, ...]
_PLAIN, _HOLD = (Script.load(Path(__file__).parent / "lua", name) for name in ("plain", "hold"))


def although_full(*commands: tuple[Word, ...]) -> Call:
    """Plain commands, each (name, key, argument, ...), as a script that also a full Redis executes. Reply: their replies.

    For writes that accepted jobs need to end, and for what operators do about a full Redis.
    """
    args = [word for name, _, *rest in commands for word in (name, len(rest), *rest)]
    return _PLAIN.call([str(command[1]) for command in commands], args)


def hold(key: str, holder: str, ms: int) -> Call:
    """Take a lease, or keep it for so many milliseconds more. Reply: 1 if it is the holder's now, else 0."""
    return _HOLD.call([key], [holder, ms])


def size_of(commands: Sequence[Command]) -> int:
    """Bytes of the commands' long words, which is nearly all that is sent."""
    words = (command if isinstance(command, tuple) else command.words for command in commands)
    return sum(len(word) for each in words for word in each if isinstance(word, bytes | str))


def ask(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    """As `run`, but raises the first exception among the replies."""
    return _checked(commands, run(client, commands) if commands else [])


async def ask_async(client: redis.asyncio.Redis, commands: Sequence[Command]) -> list[Any]:
    """As `ask`, for an asyncio client."""
    return _checked(commands, await run_async(client, commands) if commands else [])


def _checked(commands: Sequence[Command], replies: list[Any]) -> list[Any]:
    for command, reply in zip(commands, replies, strict=True):
        if isinstance(reply, ResponseError) and isinstance(command, tuple) and str(reply).startswith("WRONGTYPE"):
            raise type(reply)(f"{reply}: {command[0]!s} {command[1]!s}")  # Redis names no key
        if isinstance(reply, Exception):
            raise reply
    return replies


def run(client: redis.Redis, commands: Sequence[Command]) -> list[Any]:
    """Send all commands in one round trip. Returns one reply each, in order; the reply of a failed one is its exception."""
    sent, places = _joined(commands)
    replies = round_trip(client, [_words(command) for command in sent])
    if forgotten := _forgotten(sent, replies):
        for script in {call.script for call in forgotten.values()}:
            client.script_load(script.text)
        again = round_trip(client, [call.words for call in forgotten.values()])
        for index, reply in zip(forgotten, again, strict=True):
            replies[index] = reply
    return _by_command(replies, places)


async def run_async(client: redis.asyncio.Redis, commands: Sequence[Command]) -> list[Any]:
    """As `run`, for an asyncio client."""
    return await (client.gathered(commands) if isinstance(client, Gathering) else _run_async(client, commands))


_Waiting = tuple[Sequence[Command], asyncio.Future[list[Any]]]
MOST_CALLERS = 200  # of one shared round trip


class Gathering(redis.asyncio.Redis):
    """A client with the connections of another one, for what is polled: callers within GATHER_SECONDS share a round trip."""

    GATHER_SECONDS = 0.005

    def __init__(self, client: redis.asyncio.Redis) -> None:
        super().__init__(connection_pool=client.connection_pool)
        self._waiting: list[_Waiting] = []
        self._sending: asyncio.Task[None] | None = None

    async def gathered(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to these commands, in order. Use `run_async`."""
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((commands, answer))
        self._begin()
        return await answer

    def _begin(self) -> None:
        if len(self._waiting) == 1:
            self._sending = asyncio.create_task(self._send_soon())

    async def _send_soon(self) -> None:
        await asyncio.sleep(self.GATHER_SECONDS)
        waiting, self._waiting = self._waiting, []
        await self._send(waiting)

    async def _send(self, waiting: Sequence[_Waiting]) -> None:
        try:
            replies = iter(await _run_async(self, [command for commands, _ in waiting for command in commands]))
        except Exception as error:  # noqa: BLE001 - each caller gets it
            for _, answer in waiting:
                if not answer.done():
                    answer.set_exception(error)
            return
        for commands, answer in waiting:
            theirs = [next(replies) for _ in commands]
            if not answer.done():
                answer.set_result(theirs)


class Sharing(Gathering):
    """The same for callers that wait: a round trip begins at once, and what comes while it is under way shares the next one."""

    def _begin(self) -> None:
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting[:MOST_CALLERS], self._waiting[MOST_CALLERS:]
                await self._send([each for each in waiting if not each[1].done()])  # a caller may have given up
        finally:
            self._sending = None


async def _run_async(client: redis.asyncio.Redis, commands: Sequence[Command]) -> list[Any]:
    sent, places = _joined(commands)
    replies = await round_trip_async(client, [_words(command) for command in sent])
    if forgotten := _forgotten(sent, replies):
        for script in {call.script for call in forgotten.values()}:
            await client.script_load(script.text)
        again = await round_trip_async(client, [call.words for call in forgotten.values()])
        for index, reply in zip(forgotten, again, strict=True):
            replies[index] = reply
    return _by_command(replies, places)


_Place = int | tuple[int, int]  # of a command's reply: its index, for a part with that of its element


def _joined(commands: Sequence[Command]) -> tuple[Sequence[_Sendable], Sequence[_Place] | None]:
    """What is sent, and the place of each command's reply; None if each command has its own."""
    parts = [index for index, command in enumerate(commands) if isinstance(command, Part)]
    if not parts:
        return cast("Sequence[_Sendable]", commands), None
    groups: dict[Any, list[list[int]]] = {}  # indexes of the parts that share a call
    for index in parts:
        part = cast("Part", commands[index])
        calls = groups.setdefault((part.script.sha, part.shared_keys, part.shared_args), [[]])
        if len(calls[-1]) == PARTS_AT_MOST:
            calls.append([])
        calls[-1].append(index)
    shared = {call[-1]: call for calls in groups.values() for call in calls}
    sent = list[_Sendable]()
    places: list[_Place] = [0] * len(commands)
    for index, command in enumerate(commands):
        if index in shared:
            for element, each in enumerate(shared[index]):
                places[each] = (len(sent), element)
            sent.append(_call([cast("Part", commands[each]) for each in shared[index]]))
        elif not isinstance(command, Part):
            places[index] = len(sent)
            sent.append(command)
    return sent, places


def _call(parts: Sequence[Part]) -> Call:
    first = parts[0]
    keys = [*first.shared_keys, *(key for part in parts for key in part.keys)]
    return first.script.call(keys, [*first.shared_args, *(word for part in parts for word in part.args)])


def _by_command(replies: list[Any], places: Sequence[_Place] | None) -> list[Any]:
    if places is None:
        return replies
    found = list[Any]()
    for place in places:
        reply = replies[place if isinstance(place, int) else place[0]]
        found.append(reply if isinstance(place, int) or isinstance(reply, Exception) else reply[place[1]])
    return found


def _words(command: _Sendable) -> tuple[Word, ...]:
    return command.words if isinstance(command, Call) else command


def _forgotten(commands: Sequence[_Sendable], replies: Sequence[Any]) -> dict[int, Call]:
    return {
        index: command
        for index, (command, reply) in enumerate(zip(commands, replies, strict=True))
        if isinstance(reply, NoScriptError) and isinstance(command, Call)
    }
