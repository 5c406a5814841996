"""``python -m dmpd.lab.duts NAME FOLDER DEVICES CONTROL``: the DUTs of the LAN of that name, until TERM or INT."""

import asyncio
import logging
import signal
import sys
from pathlib import Path

from dmpd.lab.duts.fleet import Fleet
from dmpd.lab.lan import LanLab


def main(words: list[str]) -> int:
    name, folder, devices, control = words
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    asyncio.run(_serve(Fleet(LanLab(name, Path(folder), int(devices)), Path(control))))
    return 0


async def _serve(fleet: Fleet) -> None:
    task = asyncio.ensure_future(fleet.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        logging.getLogger(__name__).info("the devices are switched off")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
