"""``mcfa-fast serve``."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address
from typing import Annotated, Optional

import torch
import typer

from mcfa_fast._extras import require
from mcfa_fast.cli.common import (
    CLASSIFIER_FILE,
    CalibrationOption,
    HeadOption,
    RunArgument,
    errors_as_messages,
    load_classifier,
    say,
    warn,
)
from mcfa_fast.encoders.sentences import SentenceEncoder


def serve(
    run_dir: RunArgument,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 chooses a free one.")
    ] = 8000,
    head: HeadOption = None,
    calibration: CalibrationOption = None,
    allowed_host: Annotated[
        Optional[list[str]],
        typer.Option(
            metavar="NAME",
            help="A name that clients call this service by, besides localhost, HOST and addresses "
            "in numbers; repeatable, * is any.",
        ),
    ] = None,
    max_rows: Annotated[int, typer.Option(min=1, help="Rows in a request.")] = 10_000,
    max_bytes: Annotated[int, typer.Option(min=1, help="Bytes of a request's body.")] = 8 * 2**20,
    max_connections: Annotated[
        int, typer.Option(min=1, help="Connections at once; for more, idle ones are closed.")
    ] = 512,
    workers: Annotated[
        Optional[int],
        typer.Option(min=1, help="Requests computed at once (default: processors, at most 4)."),
    ] = None,
    allow_add: Annotated[
        bool,
        typer.Option("--allow-add", metavar="", help="Let clients add classes, by POST /classes."),
    ] = False,
    encoder: Annotated[
        Optional[str],
        typer.Option(
            metavar="PATH|NAME",
            help="sentence-transformers model for classes that clients describe by sentences.",
        ),
    ] = None,
    persist: Annotated[
        bool,
        typer.Option("--persist", metavar="", help="Write classes that clients add into the run."),
    ] = False,
) -> None:
    """Classify over HTTP: POST /classify, GET /classes, GET /health; stops on Ctrl-C or SIGTERM.

    It has no encryption and knows no users: leave it on this machine's own address, or put a proxy
    in front that has both.
    """
    if not allow_add and (encoder or persist):
        raise typer.BadParameter("--encoder and --persist need --allow-add")
    with errors_as_messages():
        require("serve", "serve")
        import uvicorn

        from mcfa_fast.serving import Limits, Service, bound_log, create_app, server_config
        from mcfa_fast.serving.connections import BACKLOG

        processors = os.cpu_count() or 1
        workers = workers or min(4, processors)
        # Each of the workers has threads of its own.
        torch.set_num_threads(max(1, processors // workers))
        limits = Limits(
            max_rows=max_rows,
            max_bytes=max_bytes,
            workers=workers,
            connections=max(1, min(max_connections, _free_descriptors() - BACKLOG)),
        )
        service = Service(
            load_classifier(run_dir, head=head, calibration=calibration),
            encoder=SentenceEncoder(encoder) if encoder else None,
            path=run_dir / CLASSIFIER_FILE if persist else None,
            max_classes=limits.max_classes,
        )
        hosts = [host, *(allowed_host or [])]
        app = create_app(service, limits, allow_add=allow_add, allowed_hosts=hosts)
        with _listen(host, port, BACKLOG) as listening:
            address = listening.getsockname()
            if allow_add and not ip_address(address[0]).is_loopback:
                warn(
                    f"--allow-add on {host}: whoever reaches this machine over a network can add "
                    "classes, for all clients"
                )
            where = f"[{host}]" if ":" in host else host
            say(f"{len(service.classes())} classes on http://{where}:{address[1]}")
            config = server_config(app, limits)
            bound_log()
            try:
                uvicorn.Server(config).run(sockets=[listening])
            except KeyboardInterrupt:
                pass  # how uvicorn ends, after it has shut down


def _free_descriptors() -> int:
    """How many files and connections may be open beside the command's own."""
    if os.name != "posix":
        return 2**20
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**20 if limit == resource.RLIM_INFINITY else limit - 64


def _listen(host: str, port: int, backlog: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by its number: asyncio turns off the delay of small packets (TCP_NODELAY, 40 ms
    # per answer) only where the socket says that it is TCP.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(backlog)
    except OSError as error:
        listening.close()
        raise OSError(f"{host}:{port}: cannot listen there: {error}") from error
    return listening
