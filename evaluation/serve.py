"""`instructvla serve MODEL`: a policy server for robots and simulators."""

import asyncio
import ipaddress
import logging
import signal
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from instructvla.command_errors import errors_on_stderr

if TYPE_CHECKING:  # websockets is an extra
    from instructvla.evaluation.policy_server import PolicyServer

STOPPING_SIGNALS = (signal.SIGTERM, signal.SIGINT)

app = typer.Typer(add_completion=False)


async def serve_until_signal(server: "PolicyServer", sock: socket.socket, announce: str) -> None:
    """Serves until SIGTERM or Ctrl-C, then answers what it has taken; a second signal ends it at once."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def begin_stop() -> None:
        typer.echo("stopping: answers what it has taken; once more to stop at once", err=True)
        for number in STOPPING_SIGNALS:
            loop.remove_signal_handler(number)
        stop.set()

    for number in STOPPING_SIGNALS:
        loop.add_signal_handler(number, begin_stop)
    await server.run(sock, stop, lambda: typer.echo(announce))


def is_open_to_others(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"


@app.command()
def main(
    model: Annotated[str, typer.Argument(help="Folder or Hub repository; nano, untrained; random; replay:FOLDER.")],
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any free one.")] = 8000,
    revision: Annotated[str | None, typer.Option(help="Of the Hub repository: branch, tag or commit.")] = None,
    device: Annotated[str | None, typer.Option(help="E.g. cuda:1; default: CUDA where there is one.")] = None,
    token: Annotated[
        str | None, typer.Option(envvar="INSTRUCTVLA_TOKEN", help="What clients must send as bearer token.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest response.")] = 50,
    compiled: Annotated[
        bool, typer.Option("--compile/--no-compile", help="On fixed shapes, prepared first; CUDA graphs.")
    ] = False,
    max_batch: Annotated[int, typer.Option(help="Most requests answered together.")] = 8,
    max_wait_ms: Annotated[float, typer.Option(help="How long a request waits for others.")] = 5.0,
    max_queue: Annotated[int, typer.Option(help="Most requests that wait; more are refused as busy.")] = 32,
    max_clients: Annotated[int, typer.Option(help="Most connections.")] = 64,
    max_message_mb: Annotated[float, typer.Option(help="Largest observation, MiB.")] = 32.0,
    deadline_s: Annotated[float, typer.Option(help="Longest time from request to answer.")] = 30.0,
) -> None:
    """Serve a model over WebSocket; openpi-client and instructvla.evaluation.policy_client talk to it."""
    with errors_on_stderr():
        try:
            from instructvla.evaluation.policy_server import PolicyServer, ServerLimits, bound_socket, url_of
        except ImportError as error:
            raise ValueError(f"the server needs {error.name}: pip install 'instructvla[serve]'") from error
        from instructvla.evaluation.scripted_policies import is_scripted, scripted_policy

        limits = ServerLimits(
            max_message_mb=max_message_mb,
            max_clients=max_clients,
            max_queue=max_queue,
            max_batch=max_batch,
            max_wait_ms=max_wait_ms,
            deadline_s=deadline_s,
        )
        if token is not None and not (token.strip() and token.isascii()):
            raise ValueError("--token must be of ASCII characters, and not empty")
        if compiled and is_scripted(model):
            raise ValueError(f"--compile is for models, and {model} is none; leave it out")
        sock = bound_socket(host, port)  # before the model is loaded: a port in use is known now
        logging.basicConfig(format="%(asctime)s %(name)s %(levelname)s %(message)s")
        if is_scripted(model):
            policy = scripted_policy(model)
        else:
            from instructvla.evaluation.served_policy import load_policy

            policy = load_policy(model, revision, device, max_new_tokens)
            if compiled:
                typer.echo(policy.prepare(max_batch))
        if token is None and is_open_to_others(host):
            typer.echo(f"warning: {host} lets everyone in who reaches this port; --token asks for a token", err=True)
        announce = f"serving {model} on {policy.metadata['device']} at {url_of(sock)}"
        asyncio.run(serve_until_signal(PolicyServer(policy, limits, token), sock, announce))


if __name__ == "__main__":
    app()
