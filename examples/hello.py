"""Two accounts greet each other.  First run: wa serve, wa register +15551230001, wa register +15551230002."""

import asyncio

from wa.client import Client, MessageReceived


async def main() -> None:
    async with Client("~/.wa/15551230001") as alice, Client("~/.wa/15551230002") as bob:
        message = await alice.send(bob.number, "hello")
        async for event in bob.events():
            if isinstance(event, MessageReceived):
                print(f"{event.sender}: {event.text}")
                await bob.mark_read(event.id)
                break
        await message.read()


asyncio.run(main())
