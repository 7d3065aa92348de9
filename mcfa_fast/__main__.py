"""``python -m mcfa_fast``: the same as the command ``mcfa-fast``."""

from __future__ import annotations

from mcfa_fast._extras import MissingExtraError


def main() -> None:
    """Runs the command line; where its extra is missing, says so in one line."""
    try:
        from mcfa_fast.cli import app
    except MissingExtraError as error:
        raise SystemExit(f"error: {error}") from None
    app(prog_name="mcfa-fast")


if __name__ == "__main__":
    main()
