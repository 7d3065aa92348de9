"""What tests set in the harness and ask of it."""

from __future__ import annotations

import ctypes

ORDERS = {"ascending": 0, "descending": 1, "random": 2}
MISSING_BARRIER, MISSING_WAIT, WRONG_ADDRESS, MISSING_FENCE = 1, 2, 3, 4
OFF, HOPPER, HOPPER_POLYNOMIAL = 0, 1, 2
CHUNK = (64, 32)  # rows and columns of the library's products


class Harness:
    """The settings of settings.cpp."""

    def __init__(self, library: ctypes.CDLL):
        self._library = library
        library.harness_calls.restype = ctypes.c_char_p
        self.reset()

    def reset(self) -> None:
        """Everything as it is at first."""
        self.order("ascending")
        self.plant(0, "")
        self.hopper(OFF)
        self.chunk(*CHUNK)
        self.symmetric_chunks(64)

    def order(self, name: str, seed: int = 0) -> None:
        """Which thread runs next: "ascending", "descending" or "random"."""
        self._library.harness_set_order(ORDERS[name], ctypes.c_uint64(seed))

    def plant(self, fault: int, line: str) -> None:
        """Makes one mistake at "file:line"; fault 0 for none."""
        self._library.harness_plant(fault, line.encode())

    def hopper(self, kernels: int) -> None:
        self._library.harness_set_hopper(kernels)

    def chunk(self, rows: int, columns: int) -> None:
        """How wide latents are cut for the library's products."""
        self._library.harness_set_chunk(ctypes.c_int64(rows), ctypes.c_int64(columns))

    def symmetric_chunks(self, most: int) -> None:
        """Into how many chunks the kernel that visits each pair once cuts the rows at most."""
        self._library.harness_set_symmetric_chunks(ctypes.c_int64(most))

    def lines(self, fault: int) -> list[str]:
        """The lines with a call where `fault` could be planted, since :meth:`forget_lines`."""
        return self._library.harness_calls(fault).decode().split()

    def forget_lines(self) -> None:
        self._library.harness_clear_calls()
