# adaptiveisp on the CPU: docker build -t adaptiveisp . && docker run -v "$PWD:/data" adaptiveisp run /data/night --out /data/seen
FROM python:3.12-slim-bookworm AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN python -m venv /opt/adaptiveisp \
    && /opt/adaptiveisp/bin/pip install --no-cache-dir -c constraints.txt '.[raw,report,onnx]'

FROM python:3.12-slim-bookworm
COPY --from=build /opt/adaptiveisp /opt/adaptiveisp
RUN useradd --create-home --uid 1000 user
USER 1000
WORKDIR /home/user
ENTRYPOINT ["/opt/adaptiveisp/bin/adaptiveisp"]
CMD ["--help"]
