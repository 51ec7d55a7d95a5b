import socket

def listen_tcp(host: str, port: int, backlog: int, reuseport: bool) -> socket.socket:
    """A listening TCP socket, non-blocking and close-on-exec; port 0 takes a free one (see getsockname()).

    `host` is a numeric address; "::" also takes IPv4.  With `reuseport` every worker listens on a socket of
    its own and the kernel spreads connections over them.  Accepted sockets have TCP_NODELAY.
    Raises OSError, and LocalError for a host that is no address.
    """

def listen_unix(path: str) -> socket.socket:
    """A listening Unix stream socket for this user only (mode 0600), non-blocking and close-on-exec.

    Replaces a socket file that nobody listens on; raises OSError(EADDRINUSE) for a live one or another file.
    """

def connect_unix(path: str) -> socket.socket:
    """A connected Unix stream socket, non-blocking and close-on-exec.

    Raises OSError; BlockingIOError when the listener's backlog is full.
    """
