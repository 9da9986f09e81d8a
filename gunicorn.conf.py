"""How gunicorn serves the product, wherever it is started from this folder."""

worker_class = "gthread"
workers = 2
threads = 4
graceful_timeout = 10
accesslog = "-"
# No query string: codes and states travel there. The logger masks links that open something.
access_log_format = '%(t)s "%(m)s %(U)s" %(s)s %(b)s %(M)s ms'
logger_class = "cpvpanel.accesslog.AccessLogger"
control_socket_disable = True


def post_worker_init(_worker: object) -> None:
    """Let each process that serves, not the one that forks them, see a stop in half a second and say that it did."""
    from tokens import watch  # now that the application is loaded

    watch.start()
