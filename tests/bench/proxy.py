"""A TCP proxy on loopback that makes a server look far away: whatever is sent arrives half a round trip later, in order, at any rate."""

import asyncio
import socket
import threading


class Distant:
    """A context manager; `port` leads to 127.0.0.1:`server_port`, with `round_trip` seconds there and back."""

    def __init__(self, server_port, round_trip):
        self.server_port, self.one_way = server_port, round_trip / 2
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        asyncio.run_coroutine_threadsafe(asyncio.start_server(self.accept, sock=self.listener), self.loop).result()
        return self

    def __exit__(self, *_):
        # The programs that were measured have ended, and their sessions with them; what they said last may be under way.
        asyncio.run_coroutine_threadsafe(self.end(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    async def end(self):
        carrying = asyncio.all_tasks() - {asyncio.current_task()}
        if carrying:
            await asyncio.wait(carrying, timeout=5)

    async def accept(self, reader, writer):
        try:
            there = await asyncio.open_connection("127.0.0.1", self.server_port)
            await asyncio.gather(self.carry(reader, there[1]), self.carry(there[0], writer))
        except OSError:
            # Whoever is at the other end is told by the end of the stream.
            writer.close()

    async def carry(self, reader, writer):
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        under_way = asyncio.Queue()

        async def deliver():
            while True:
                due, data = await under_way.get()
                await asyncio.sleep(due - self.loop.time())
                if not data:
                    writer.close()
                    return
                writer.write(data)
                await writer.drain()

        delivery = asyncio.ensure_future(deliver())
        try:
            while data := await reader.read(1 << 18):
                under_way.put_nowait((self.loop.time() + self.one_way, data))
        finally:
            under_way.put_nowait((self.loop.time() + self.one_way, b""))
            await delivery
