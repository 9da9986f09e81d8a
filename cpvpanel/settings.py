"""
Every setting of the product, read once from the environment. `NAME_FILE` names a file that holds the value of `NAME`.

`make run` works without any of them: under DEBUG the defaults speak to the stand-in. Outside DEBUG nothing secret has a
default, and a missing name stops the start. Bad combinations are system checks (`tokens/checks.py`).
"""

import datetime as dt
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from csp.constants import NONE, SELF

from cpvpanel import filequeue, logs, messagebroker, sentry, signing

BASE_DIR = Path(__file__).resolve().parent.parent

env = environ.FileAwareEnv()
environ.Env.read_env(os.environ.get("CPV_ENV_FILE", str(BASE_DIR / ".env")))
VAR_DIR = Path(env.str("CPV_VAR_DIR", default=str(BASE_DIR / "var"))).resolve()

DEBUG = env.bool("DEBUG", default=False)


def needed(development: str) -> Any:
    """A value without a default outside DEBUG; in development the one the stand-in knows."""
    return development if DEBUG else environ.Env.NOTSET


# --- Django ---------------------------------------------------------------------------------------------------------
SECRET_KEY = env.str("SECRET_KEY", default=needed("development-only-secret-key-of-no-value-0123456789"))
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_FALLBACKS", default=[])
CPV_PORT = env.int("CPV_PORT", default=8000)
CPV_BASE_URL = env.str("CPV_BASE_URL", default=needed(f"http://localhost:{CPV_PORT}")).rstrip("/")
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]", "testserver"] if DEBUG else [])
ROOT_URLCONF = "cpvpanel.urls"
WSGI_APPLICATION = "cpvpanel.wsgi.application"
INSTALLED_APPS = [
    "cpvpanel",  # first, because its createsuperuser takes the place of Django's
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "consent",
    "partners",
    "tokens",
    "cpvpanel.desk_config.DeskConfig",
    "django_otp",
    "django_otp.plugins.otp_totp",
    "django_otp.plugins.otp_static",
    "cpvpanel.desk_config.PasskeysConfig",
    "axes",
    "django_htmx",
    "csp",
]
MIDDLEWARE = [
    "cpvpanel.middleware.BeginClosed",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "cpvpanel.frontdoor.FrontDoor",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "cpvpanel.frontdoor.TurnedAway",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "cpvpanel.sessions.SessionLimits",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "cpvpanel.middleware.OneNotFoundPage",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "cpvpanel.context.panel",
            ],
        },
    }
]
AUTH_USER_MODEL = "partners.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 14}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
AUTHENTICATION_BACKENDS = ["partners.sign_in_backends.Throttle", "partners.sign_in_backends.People"]
LOGIN_URL = "/signin"
LOGIN_REDIRECT_URL = "/"
LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
USE_THOUSAND_SEPARATOR = True
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
STATICFILES_DIRS = [BASE_DIR / "static"]
if not DEBUG and (STATIC_ROOT / "staticfiles.json").exists():
    STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    }
else:  # nobody ran collectstatic: the pages work, and browsers ask for each file again
    WHITENOISE_USE_FINDERS = True
    WHITENOISE_AUTOREFRESH = DEBUG

# --- Data -----------------------------------------------------------------------------------------------------------
VAR_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)


def database(name: str, fallback: Any) -> dict[str, Any]:
    """One database from a URL; SQLite with the only options that never answer "database is locked"."""
    config: dict[str, Any] = env.db_url(name, default=fallback)
    if config["ENGINE"] == "django.db.backends.sqlite3":
        config["OPTIONS"] = {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=20000;",
        }
    else:
        config["CONN_MAX_AGE"] = 0
        config.setdefault("OPTIONS", {})["pool"] = {
            "min_size": 1,
            "max_size": env.int("CPV_DATABASE_POOL", default=16),
            "timeout": 10,
        }
        config["OPTIONS"]["server_side_binding"] = False  # several statements are said at once
    return config


DATABASE_URL_DEFAULT = needed(f"sqlite:///{VAR_DIR / 'db.sqlite3'}")
DATABASES = {"default": database("DATABASE_URL", DATABASE_URL_DEFAULT)}
CPV_DATABASE_LOGIN = DATABASES["default"].get("USER", "")
CPV_WALLS_REQUIRED = not DEBUG  # refuse a login that row level security does not bind
if "migrate" in sys.argv[1:2]:
    CPV_WALLS_REQUIRED = False
    if env.str("DATABASE_OWNER_URL", default=""):
        DATABASES["default"] = database("DATABASE_OWNER_URL", DATABASE_URL_DEFAULT)
CPV_DATABASE_EMBEDDED = DATABASES["default"]["ENGINE"].endswith("sqlite3")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CPV_CACHE_URL = env.str("CACHE_URL", default="locmemcache://")
CACHES = {"default": environ.Env.cache_url_config(CPV_CACHE_URL)}
vars().update(env.email_url("EMAIL_URL", default="consolemail://"))
EMAIL_TIMEOUT = 20  # seconds a mail server may take for each step
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="CPV Panel <cpv-panel@localhost>")

# --- Web security ---------------------------------------------------------------------------------------------------
HTTPS = CPV_BASE_URL.startswith("https://")
COOKIE_PREFIX = "__Host-" if HTTPS else ""
SESSION_COOKIE_NAME = f"{COOKIE_PREFIX}cpv_session"
SESSION_COOKIE_SECURE = HTTPS
SESSION_COOKIE_AGE = 8 * 60 * 60
SESSION_COOKIE_SAMESITE = "Lax"  # Strict would lose the session on the way back from Microsoft
CSRF_COOKIE_NAME = f"{COOKIE_PREFIX}cpv_csrf"
CSRF_COOKIE_SECURE = HTTPS
CSRF_COOKIE_HTTPONLY = True
CSRF_FAILURE_VIEW = "cpvpanel.views.form_expired"
CSRF_TRUSTED_ORIGINS = [CPV_BASE_URL]
SECURE_SSL_REDIRECT = HTTPS
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_HSTS_SECONDS = 63_072_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = HTTPS
SECURE_HSTS_PRELOAD = HTTPS
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 256 * 1024  # bytes of a form
CPV_TRUSTED_PROXIES = env.int("CPV_TRUSTED_PROXIES", default=0)
CPV_RATE_PER_ADDRESS = env.str("CPV_RATE_PER_ADDRESS", default="60/minute")
CPV_RATE_OVERALL = env.str("CPV_RATE_OVERALL", default="1200/minute")
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
        "manifest-src": [SELF],
    }
}

# --- The desk: the vendor's staff -----------------------------------------------------------------------------------
CPV_ALARM_MAIL = env.list("CPV_ALARM_MAIL", default=[])
CPV_STAFF_ENTRA = env.bool("CPV_STAFF_ENTRA", default=False)
CPV_STAFF_CLOUD = env.str("CPV_STAFF_CLOUD", default="global")
# The stand-in meets every authentication context, so a first look needs to set none.
CPV_STAFF_CONTEXT = env.str("CPV_STAFF_CONTEXT", default="c1" if DEBUG and CPV_STAFF_ENTRA else "")
PASSWORD_RESET_TIMEOUT = 24 * 60 * 60  # how long a link to the desk opens it
OTP_TOTP_ISSUER = "CPV Panel desk"
OTP_TOTP_SYNC = False
OTP_ADMIN_HIDE_SENSITIVE_DATA = True
OTP_WEBAUTHN_ALLOW_PASSWORDLESS_LOGIN = False  # a passkey is the second of two factors, never the only one
OTP_WEBAUTHN_RP_ID = urlsplit(CPV_BASE_URL).hostname or ""
OTP_WEBAUTHN_RP_NAME = "CPV Panel desk"
OTP_WEBAUTHN_ALLOWED_ORIGINS = [CPV_BASE_URL]
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = 5
AXES_COOLOFF_TIME = dt.timedelta(minutes=15)
AXES_RESET_ON_SUCCESS = True  # only the second factor is a success
AXES_CLIENT_IP_CALLABLE = "partners.client_address.address_of"
AXES_LOCKOUT_CALLABLE = "cpvpanel.desk.the_same_answer"
AXES_DISABLE_ACCESS_LOG = True  # the audit has who came in
AXES_ENABLE_ADMIN = False
AXES_VERBOSE = False

# --- This product ---------------------------------------------------------------------------------------------------
CPV_VENDOR_NAME = env.str("CPV_VENDOR_NAME", default="Panel Vendor" if DEBUG else "the vendor")
CPV_ROLE = env.str("CPV_ROLE", default=needed("worker"))
CPV_REHEARSAL = env.bool("CPV_REHEARSAL", default=False)
CPV_SANDBOX_PORT = env.int("CPV_SANDBOX_PORT", default=8400)
CPV_SANDBOX_URL = env.str("CPV_SANDBOX_URL", default=f"http://localhost:{CPV_SANDBOX_PORT}" if DEBUG else "").rstrip(
    "/"
)
CPV_SANDBOX_PUBLIC_URL = env.str("CPV_SANDBOX_PUBLIC_URL", default=CPV_SANDBOX_URL).rstrip("/")
CPV_SANDBOX_ADAPTER = "tokens.http.StandInAdapter"  # tests mount the stand-in in their own process

CPV_GUARD_TRANSACTIONS = DEBUG  # raise when a request leaves inside a transaction

CPV_CLOUD_SUFFIXES = {"global": "", "usgov": "_USGOV", "china": "_CHINA"}


# What the stand-in's first world knows; worth nothing anywhere else.
DEMO_VENDOR_TENANT = "0d5a7c9e-4b1f-4c63-9a2e-71c0de000001"
DEMO_APP_ID = "0d5a7c9e-4b1f-4c63-9a2e-71c0de0000a1"
DEMO_APP_SECRET = "pretended-app-secret"  # noqa: S105
DEMO_VAULT_URL = "https://cpv-demo.vault.azure.net"
DEMO_VAULT_IDENTITIES = {
    "web": ("0d5a7c9e-4b1f-4c63-9a2e-71c0de0000b1", "pretended-vault-web-secret"),
    "worker": ("0d5a7c9e-4b1f-4c63-9a2e-71c0de0000b2", "pretended-vault-worker-secret"),
}


def app_registration(suffix: str) -> dict[str, Any]:
    """The vendor's application in one national cloud; without an app id the cloud is closed for invitations."""
    pretended = DEBUG and not suffix
    return {
        "tenant_id": env.str(f"CPV_TENANT_ID{suffix}", default=DEMO_VENDOR_TENANT if pretended else ""),
        "app_id": env.str(f"CPV_APP_ID{suffix}", default=DEMO_APP_ID if pretended else ""),
        "certificate": env.str(f"CPV_APP_CERTIFICATE{suffix}", default="", multiline=True),
        "next_certificate": env.str(f"CPV_APP_CERTIFICATE_NEXT{suffix}", default="", multiline=True),
        "federated": env.bool(f"CPV_APP_FEDERATED{suffix}", default=False),
        "federated_client_id": env.str(f"CPV_APP_FEDERATED_CLIENT_ID{suffix}", default=""),
        "secret": env.str(f"CPV_APP_SECRET{suffix}", default=DEMO_APP_SECRET if pretended else ""),
    }


def vault(suffix: str) -> dict[str, Any]:
    """The Key Vault of one national cloud and this process's own identity there."""
    pretended = DEBUG and not suffix
    client_id, secret = DEMO_VAULT_IDENTITIES.get(CPV_ROLE, ("", "")) if pretended else ("", "")
    return {
        "url": env.str(f"KEY_VAULT_URL{suffix}", default=DEMO_VAULT_URL if pretended else ""),
        "tenant_id": env.str(f"KEY_VAULT_TENANT_ID{suffix}", default=DEMO_VENDOR_TENANT if pretended else ""),
        "client_id": env.str(f"KEY_VAULT_CLIENT_ID{suffix}", default=client_id),
        "secret": env.str(f"KEY_VAULT_CLIENT_SECRET{suffix}", default=secret),
        "certificate": env.str(f"KEY_VAULT_CERTIFICATE{suffix}", default="", multiline=True),
    }


CPV_APPS = {cloud: app_registration(suffix) for cloud, suffix in CPV_CLOUD_SUFFIXES.items()}
CPV_VAULTS = {cloud: vault(suffix) for cloud, suffix in CPV_CLOUD_SUFFIXES.items()}
# Workers' alone: whoever may write rows must not be able to anchor them.
CPV_AUDIT_KEY = env.str(
    "CPV_AUDIT_KEY", default="development-only-key-of-audit-anchors" if DEBUG or CPV_REHEARSAL else ""
)
CPV_TOKEN_KEYS = env.str("CPV_TOKEN_KEYS", default=needed("dev=ZGV2ZWxvcG1lbnQtb25seS1rZXktb2Ytbm8tdmFsdWU="))
CPV_PERMISSIONS = env.str("CPV_PERMISSIONS", default="standard")
CPV_CONSENT_ROLES = env.list("CPV_CONSENT_ROLES", default=["admin_agent"])
CPV_EGRESS_ADDRESSES = env.list("CPV_EGRESS_ADDRESSES", default=[])
CPV_SIGN_IN_CONTEXT = env.str("CPV_SIGN_IN_CONTEXT", default="")
CPV_RESPONSE_MODE = env.str("CPV_RESPONSE_MODE", default="query")
CPV_REFRESH_STORE_INTERVAL = env.int("CPV_REFRESH_STORE_INTERVAL", default=86_400)  # seconds

# --- Work -----------------------------------------------------------------------------------------------------------
CPV_TURN_SECONDS = env.int("CPV_TURN_SECONDS", default=600)  # how long a job works before it lets others go on
CPV_LIST_GROWTH = env.int("CPV_LIST_GROWTH", default=10_000)  # rows beyond twice as many as are known: no end
CPV_CALLS_PER_PARTNER = env.float("CPV_CALLS_PER_PARTNER", default=500)  # a second, to one service
CPV_CALLS_PER_SECOND = env.float("CPV_CALLS_PER_SECOND", default=2000)  # of all partners of a cloud, to one service
CPV_TOKENS_PER_SECOND = env.float("CPV_TOKENS_PER_SECOND", default=10)  # that jobs ask Entra for, in one cloud
CPV_FAULTPOINT = env.str("CPV_FAULTPOINT", default="")  # a rehearsal: where this process shall die
CPV_MESSAGE_KEY = env.str("CPV_MESSAGE_KEY", default="", multiline=True)
CPV_MESSAGE_CERT = env.str("CPV_MESSAGE_CERT", default="", multiline=True)
CPV_MESSAGE_CERT_STORE = env.str("CPV_MESSAGE_CERT_STORE", default="", multiline=True)
CPV_MESSAGES_SIGNED = bool(CPV_MESSAGE_KEY)
if CPV_MESSAGES_SIGNED:
    signing.use(key=CPV_MESSAGE_KEY, certificate=CPV_MESSAGE_CERT, trusted=CPV_MESSAGE_CERT_STORE)
filequeue.register()
vars().update(
    messagebroker.celery_settings(
        env.str("CELERY_BROKER_URL", default=needed("filequeue://")),
        folder=VAR_DIR / "messages",
        longest_turn=CPV_TURN_SECONDS,
        signed=CPV_MESSAGES_SIGNED,
    )
)

# --- Logs -----------------------------------------------------------------------------------------------------------
DEFAULT_EXCEPTION_REPORTER = "cpvpanel.reports.Reporter"
DEFAULT_EXCEPTION_REPORTER_FILTER = "cpvpanel.reports.Filter"
LOGGING_CONFIG = None
logs.configure(debug=DEBUG)
SENTRY_DSN = env.str("SENTRY_DSN", default="")
CPV_SENTRY_STARTED = sentry.start(SENTRY_DSN)
