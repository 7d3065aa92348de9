"""Classification over HTTP (``pip install mcfa_fast[serve]``)."""

from mcfa_fast._extras import require

require("serve", __name__)

from mcfa_fast.serving.app import create_app
from mcfa_fast.serving.connections import server_config
from mcfa_fast.serving.limits import Limits
from mcfa_fast.serving.log import bound_log
from mcfa_fast.serving.service import Service

__all__ = ["Limits", "Service", "bound_log", "create_app", "server_config"]
