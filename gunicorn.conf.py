"""How Gunicorn serves the web tier; every number comes from the settings."""

import math
import sys

from app.server.gunicorn_logger import EdgeLogger
from app.server.gunicorn_worker import EXIT_S, EdgeWorker
from app.server.open_files import warn_of_fewer_connections, with_possible_connections
from contract.core_dumps import forbid_core_dumps
from contract.keys_file import check_keys_file
from contract.logs import configure_logging
from contract.settings import SettingsInvalid, load_settings
from contract.tracing import TracingUnavailable, check_tracing

try:
    _given = load_settings()
    check_keys_file(_given)
    check_tracing(_given.traces_url)
    _settings = with_possible_connections(_given)
except (SettingsInvalid, TracingUnavailable) as error:
    sys.exit(f"evascore: {error}")
configure_logging(_settings.log_level, "web")
warn_of_fewer_connections(_given.web_connections, _settings.web_connections)
forbid_core_dumps()

wsgi_app = "app.wsgi:application"
bind = _settings.bind
# A connection holds a greenlet and little else, so one process serves thousands of them.
workers = 1
worker_class = EdgeWorker
worker_connections = _settings.web_connections
timeout = _settings.web_timeout_s
# The master kills a process that has not ended by then.
graceful_timeout = math.ceil(_settings.drain_s + EXIT_S)
limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190

# The request log is ours, and so are the form and the place of Gunicorn's own lines.
accesslog = None
errorlog = None
logger_class = EdgeLogger
loglevel = _settings.log_level.lower()
control_socket_disable = True
