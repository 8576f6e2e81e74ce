# One image for every service and the command line: `python -m services NAME`, `hune COMMAND`.
FROM python:3.11-slim AS packages
WORKDIR /build
COPY requirements.lock deploy/image_packages.py ./
RUN python3 image_packages.py requirements.lock > image.lock \
 && python3 -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --disable-pip-version-check --quiet --no-deps --require-hashes -r image.lock \
 && /opt/venv/bin/pip uninstall --quiet --yes pip setuptools

FROM python:3.11-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /var/lib/hune hune \
 && install -d -o hune -g hune /var/lib/hune
COPY --from=packages /opt/venv /opt/venv
WORKDIR /app
COPY services services
COPY shared shared
COPY cli cli
COPY devstack devstack
COPY config config
COPY deploy/bin /usr/local/bin
# Compiled here, for at run time nothing under /app can be written; and proof that no package is missing.
RUN python3 -m compileall -q /app/services /app/shared /app/cli /app/devstack \
 && PATH=/opt/venv/bin:$PATH python -c "import importlib, services.__main__ as s; [importlib.import_module(f'services.{n}.app') for n in s.NAMES]; import cli.main"
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    HUNE_HOME=/var/lib/hune HUNE_PROBES_HOST=0.0.0.0 HUNE_PROBES_PORT=9100 HUNE_GATEWAY_HOST=0.0.0.0
USER 10001:10001
EXPOSE 8080 9100
ENTRYPOINT []
CMD ["hune", "--help"]
