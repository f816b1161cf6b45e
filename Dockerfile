# A worker without the embedded server: it needs a DATABASE_URL.
#   docker build -t pgworker .
#   docker run --env-file pgworker.env -v ./supabase:/srv/pgworker/supabase:ro pgworker

FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml requirements-run.lock README.md LICENSE ./
COPY pgworker pgworker
COPY cli cli
COPY sql sql
# The lock includes the embedded server. Used as constraints, it fixes versions and installs nothing.
RUN sed -E '/^ +(--hash|#)/d; s/ \\$//' requirements-run.lock > /tmp/constraints.txt \
    && pip wheel --no-cache-dir --no-deps --wheel-dir /tmp/dist . \
    && python -m venv /opt/pgworker \
    && /opt/pgworker/bin/pip install --no-cache-dir --constraint /tmp/constraints.txt \
        "$(echo /tmp/dist/pgworker-*.whl)[http]"

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /srv/pgworker --create-home pgworker
COPY --from=build /opt/pgworker /opt/pgworker
ENV PATH=/opt/pgworker/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /srv/pgworker
# SIGTERM drains. Set --stop-timeout to the time that a phase may take.
STOPSIGNAL SIGTERM
ENTRYPOINT ["pgworker"]
CMD ["run"]
