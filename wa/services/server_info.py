"""What the server tells about itself."""

from wa import limits
from wa.services.base import Answer, Params, Request
from wa.storage.registry import View


def server_info(request: Request[View], params: Params) -> Answer:
    """-> {version, protocol, time_ms}"""
    return Answer(
        {"version": request.site.version, "protocol": limits.PROTOCOL_VERSION, "time_ms": request.now_ms}
    )
