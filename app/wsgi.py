"""Makes the application that Gunicorn serves, with the settings of this process."""

from app.factory import create_app
from app.server.open_files import with_possible_connections
from app.server.request_log import current_request_id
from app.service.forgetting import forget_in_background
from contract.logs import configure_logging
from contract.settings import load_settings
from contract.tracing import start_tracing

settings = with_possible_connections(load_settings())
configure_logging(settings.log_level, "web", request_id_of=current_request_id)
application = create_app(settings, start_tracing(settings.traces_url, "web"))
forget_in_background(settings)
