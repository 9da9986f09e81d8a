# One image for web, worker, beat, migrate and the stand-in; docs/containers.md tells how to use it.
#
# Pinned by version. To pin the very bytes as well, ask once for the digest and write it behind the tag:
#   docker buildx imagetools inspect python:3.11.14-slim-bookworm --format '{{.Manifest.Digest}}'
#   ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm

# --- Installing: what pip needs stays here --------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
RUN python -m venv --without-pip /opt/venv
COPY requirements.txt .
RUN python -m pip --python /opt/venv/bin/python install --require-hashes --only-binary :all: -r requirements.txt
COPY . .
# Static files need settings that can be read, and nothing of them stays: these values exist in this one command only.
RUN DEBUG=false CPV_ENV_FILE=/dev/null CPV_VAR_DIR=/tmp/var CPV_ROLE=web CPV_BASE_URL=https://build.invalid \
    SECRET_KEY=unused-while-building DATABASE_URL=sqlite://:memory: CELERY_BROKER_URL=memory:// CPV_TOKEN_KEYS=unused \
    /opt/venv/bin/python manage.py collectstatic --no-input --skip-checks \
    && /opt/venv/bin/python -m compileall -q cpvpanel consent partners tokens sandbox /opt/venv/lib

# --- Running: Python, what was installed, and the code --------------------------------------------------------------
FROM ${PYTHON_IMAGE}
# pip is a build tool too, and nothing here may be changed by who runs it.
RUN python -m pip uninstall --yes --quiet pip setuptools wheel 2>/dev/null; rm -rf /usr/local/lib/python3.*/ensurepip \
    && groupadd --system --gid 10001 cpv \
    && useradd --system --uid 10001 --gid cpv --no-create-home --home-dir /run/cpv --shell /usr/sbin/nologin cpv \
    && install -d -o cpv -g cpv -m 700 /var/lib/cpv-sandbox
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    CPV_ENV_FILE=/dev/null CPV_VAR_DIR=/run/cpv/var
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
WORKDIR /app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
CMD ["gunicorn", "cpvpanel.wsgi:application", "--bind", "0.0.0.0:8000"]
