"""Registration: makes a Noise key, proves the number by a code, binds the key, uploads prekeys.

Each step is stored before the next one begins: a registration that was cut is simply run again.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from wa.client.account import Account
from wa.client.connection import Connection, Endpoint, parse_server
from wa.client.link import stock_keys
from wa.client.timing import Timing
from wa.errors import Code, LocalError, RemoteError
from wa.ids import Number, address_of, format_number, is_device_address, number_of
from wa.noise.records import Intent
from wa.wire.methods import Method

AskCode = Callable[[], str | Awaitable[str]]


async def register(
    account: Account,
    number: Number,
    *,
    server: str,
    root_key: bytes,
    ask_code: AskCode,
    mode: str,
    name: str,
    timing: Timing,
) -> None:
    """`account` was opened with `create=True`.  Raises RemoteError, ConnectionLost, LocalError."""
    if mode not in ("replace", "add"):
        raise LocalError(f'mode is "replace" or "add", not {mode!r}')
    if len(root_key) != 32:
        raise LocalError("a root key is 32 bytes (64 hexadecimal digits)")
    if account.is_registered and account.number != number:
        raise LocalError(f"{account.directory} is the account of {format_number(account.number)}")
    host, port = parse_server(server)
    account.prepare_registration(server, root_key)
    endpoint = Endpoint(
        host=host,
        port=port,
        root_key=root_key,
        static_private=account.static_private,
        intent=Intent.REGISTER,
        address=address_of(number, 0),
        certificate=account.certificate,
    )
    connection = await Connection.open(endpoint, timing)
    reader = asyncio.create_task(_read(connection))
    steps = asyncio.create_task(_steps(account, connection, number, ask_code=ask_code, mode=mode, name=name))
    try:
        await asyncio.wait({reader, steps}, return_when=asyncio.FIRST_COMPLETED)
        if reader.done() and not steps.done():
            reader.result()  # raises why the connection ended
        await steps
    finally:
        for task in (reader, steps):
            task.cancel()
        await asyncio.gather(reader, steps, return_exceptions=True)
        await connection.close()


async def _read(connection: Connection) -> None:
    """Settles responses.  Everything else stays unacknowledged, so it comes again after the login."""
    async with asyncio.TaskGroup() as group:
        group.create_task(connection.keep_alive())
        while True:
            await connection.receive()


async def _steps(
    account: Account, connection: Connection, number: Number, *, ask_code: AskCode, mode: str, name: str
) -> None:
    await connection.request(Method.REGISTER_REQUEST_CODE, {})
    answer = await _verify(connection, ask_code, mode, name)
    address = answer.get("address")
    if not isinstance(address, int) or not is_device_address(address) or number_of(address) != number:
        raise RemoteError(Code.PROTOCOL_ERROR, "the server bound the key to another number")
    account.keep_certificate(connection.certificate)
    account.finish_registration(address)
    await stock_keys(account, connection)


async def _verify(connection: Connection, ask_code: AskCode, mode: str, name: str) -> dict[str, object]:
    """Asks again after a wrong code, while the user types another one and the server allows it."""
    last = None
    while True:
        asked = ask_code()
        code = (await asked if inspect.isawaitable(asked) else asked).strip()
        try:
            return await connection.request(Method.REGISTER_VERIFY, {"code": code, "mode": mode, "name": name})
        except RemoteError as error:
            if error.code is not Code.CODE_WRONG or code == last:
                raise
        last = code
