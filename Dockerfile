# One image for all that runs: the worker (its default command), the API, migrate, Flower and the `surefoot` command.
# Nothing here needs BuildKit, so the legacy builder makes the same image.

FROM python:3.13-slim AS build
WORKDIR /build
# The only step that reaches an index. What does not have a hash in the lock file cannot get past it, and a source
# package, which would run its own code to be installed, is not fetched at all.
COPY requirements.lock ./
RUN python -m pip download --quiet --no-cache-dir --require-hashes --no-deps --only-binary :all: \
      --dest wheels -r requirements.lock
# The lock file pins test and development tools, too. From here on pip sees only the files it has just checked, and
# picks what [worker], [api] and [otel] need; the build backend comes from among them as well.
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/build/wheels PIP_NO_CACHE_DIR=1
# No pip in it: nothing can be installed into a running container.
RUN python -m venv --without-pip /venv
# Dependencies first, around a package still empty, so that a change of code does not install them again.
COPY pyproject.toml LICENSE ./
RUN touch README.md && python -m pip --quiet --python /venv/bin/python install '.[worker,api,otel]'
COPY README.md ./
COPY producer producer
COPY tasks tasks
COPY worker worker
RUN python -m pip --quiet --python /venv/bin/python install --no-deps --force-reinstall .
# A checkout made under a strict umask would give the image a file that its own user cannot read.
COPY celeryconfig.py /app/
RUN chmod 644 /app/celeryconfig.py

FROM python:3.13-slim
# By number, because Kubernetes' runAsNonRoot cannot tell who a name is.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin surefoot
# Unbuffered, or the last lines before a kill are lost.
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Celery looks for celeryconfig in the working directory; the wheel leaves it out on purpose.
WORKDIR /app
COPY --from=build /venv /venv
COPY --from=build /app ./
# Where Flower remembers: a volume takes over whose folder this is.
RUN install -d -o 10001 -m 700 /var/lib/flower
USER 10001
# As a list, so that no shell stands between `docker stop` and Celery: it must hear SIGTERM to finish what it has begun.
CMD ["surefoot-worker", "start"]
