# syntax=docker/dockerfile:1
# Both base images can be chosen, for a mirror or another release; they have to share a C library.
ARG BUILD_IMAGE=rust:1-bookworm
ARG RUN_IMAGE=debian:bookworm-slim

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY . .
ARG PROFILE=release
# Queries are checked against .sqlx; there is no database here. The caches keep a rebuild from beginning anew.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    SQLX_OFFLINE=true cargo build --locked --profile "$PROFILE" --bin stockyard \
    && install -D "target/$([ "$PROFILE" = dev ] && echo debug || echo "$PROFILE")/stockyard" /out/stockyard

FROM ${RUN_IMAGE}
COPY --from=build /out/stockyard /usr/local/bin/stockyard
# Whom an issuer of tokens is trusted by. (Another base image may have them already.)
RUN [ -e /etc/ssl/certs/ca-certificates.crt ] || { apt-get update && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*; }
# Nobody in particular: the service writes no file.
USER 10001:10001
ENV STOCKYARD__HTTP__LISTEN=0.0.0.0:8000
EXPOSE 8000
HEALTHCHECK --interval=2s --timeout=5s --start-period=10s --retries=15 \
    CMD ["stockyard", "healthcheck", "--url", "http://127.0.0.1:8000/readyz"]
ENTRYPOINT ["stockyard"]
CMD ["serve", "--role", "all"]
