import asyncio, time
from tests.api.live import *
from tests.support import Api
async def test_p(viewer: Api, story: Story, live) -> None:
    await story.say(300)
    for n in (1, 10, 17, 30, 290):
        async with viewer.socket() as socket:
            await ask(socket, "1", EVENTS, variables={"j": story.id, "a": "0"})
            for _ in range(n): await socket.receive()
            await asyncio.sleep(.3)
            print(n, "paused", socket.raw.recv_messages.paused, len(socket.raw.recv_messages.frames))
            t = time.monotonic()
        print(n, "closed in", time.monotonic() - t)
        t = time.monotonic()
        await until(lambda: live.streams.tails == 0, 30)
        print("tail gone", time.monotonic()-t)
