"""Much work in pieces, and what takes long in threads: everybody else is served between."""

import asyncio
import itertools
import threading

import pytest
from running import until
from stores import passes

from hub.stream import passes as module
from hub.stream.passes import Passes


class TestPasses:
    @staticmethod
    async def work(passes: Passes, each: int, done: list[int], clock: list[int]) -> None:
        for _ in range(each):
            await passes.turn()
            done.append(clock[0])

    @pytest.mark.parametrize("weakened", [False, True])
    async def test_one_piece_every_few_passes(self, weakened: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        if weakened:

            async def turn(passes: Passes, *, begun: bool = False) -> None:
                await asyncio.sleep(0)

            monkeypatch.setattr(Passes, "turn", turn)
        turns, done, clock = Passes(), list[int](), [0]

        def tick() -> None:
            clock[0] += 1
            if len(done) < 40:
                asyncio.get_running_loop().call_soon(tick)

        tick()
        await asyncio.gather(*(self.work(turns, 4, done, clock) for _ in range(10)))
        between = [later - earlier for earlier, later in itertools.pairwise(done)]
        if weakened:
            assert between.count(0) == 36
        else:
            assert min(between) >= module.REST

    @pytest.mark.parametrize("begun", [False, True])
    async def test_who_has_begun_goes_before_who_has_not(self, begun: bool) -> None:
        turns, done = Passes(), list[int]()

        async def work(number: int) -> None:
            await turns.turn()
            for _ in range(3):
                done.append(number)
                await turns.turn(begun=begun)

        await asyncio.gather(*(work(number) for number in range(3)))
        assert (done == sorted(done)) is begun

    async def test_who_does_not_wait_any_more_is_passed_over(self) -> None:
        turns, done, clock = Passes(), list[int](), [0]
        tasks = [asyncio.create_task(self.work(turns, 1, done, clock)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert len(done) == 2
        await passes()
        await self.work(turns, 1, done, clock)  # nobody was waiting: it begins at once
        assert len(done) == 3


class TestApart:
    """What takes long in threads: one of them at a time."""

    @pytest.mark.parametrize("weakened", [False, True])
    async def test_one_thread_at_a_time_also_if_nobody_waits_for_it(
        self, weakened: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        passes, most, now, go = Passes(), 0, 0, threading.Event()
        if weakened:
            monkeypatch.setattr(passes, "_thread", asyncio.Semaphore(100))

        def work() -> int:
            nonlocal most, now
            now += 1
            most = max(most, now)
            go.wait(30)
            now -= 1
            return 5

        tasks = [asyncio.create_task(passes.apart(work)) for _ in range(4)]
        await until(lambda: now, "one works")
        tasks[0].cancel()
        tasks[1].cancel()
        await asyncio.wait(tasks[:2])
        go.set()
        assert await asyncio.gather(*tasks[2:]) == [5, 5]
        assert (most == 1) is not weakened
        assert await passes.apart(lambda: 7) == 7, "whoever was cancelled holds nobody back"

    async def test_who_does_not_wait_for_its_turn_any_more_holds_nobody_back(self) -> None:
        passes = Passes()
        await passes.turn()
        waiting = asyncio.create_task(passes.apart(lambda: 5))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert await passes.apart(lambda: 7) == 7
