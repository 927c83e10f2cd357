# The service and nothing else: no shell, no package manager, nobody's rights, no file that it writes. Fetched are the two base images,
# which can be chosen (a mirror, another release, a digest), and crates. scripts/image.sh builds it with its labels, and tries it.

# With Cargo, a C and C++ compiler and make.
ARG BUILD_IMAGE=rust:1.95.0-bookworm
# With a C library no older than that one's, libgcc, and the certificates in /etc/ssl/certs by which an issuer of tokens is known.
ARG RUN_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
ARG CARGO_AUDITABLE_VERSION=0.7.7
ARG CARGO_CYCLONEDX_VERSION=0.5.9
# Unoptimised: they work for seconds. Where crates come from elsewhere, --secret id=cargo,src=<Cargo's config.toml> says so, here and below,
# and leaves no trace.
RUN --mount=type=secret,id=cargo,target=/usr/local/cargo/config.toml \
    --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/opt/target,sharing=locked \
    export CARGO_TARGET_DIR=/opt/target \
    && cargo install cargo-auditable --version "$CARGO_AUDITABLE_VERSION" --locked --debug --root /opt/tools \
    && cargo install cargo-cyclonedx --version "$CARGO_CYCLONEDX_VERSION" --locked --debug --root /opt/tools
ENV PATH=/opt/tools/bin:$PATH
WORKDIR /src
COPY . .
ARG PROFILE=release
# What it is built from, as `stockyard --version` and the metrics tell it.
ARG REVISION=unknown
# Seconds since 1970, for the time in the list of parts: the same sources give the same list.
ARG SOURCE_DATE_EPOCH=0
# Queries are checked against .sqlx; there is no database here. The caches keep a rebuild from beginning anew. Which crates the program
# is made of stands in the program itself (cargo auditable) and, with licences and hashes, beside it (CycloneDX). Of what the compiler's
# image has, zlib would be linked to as a library that the other base need not have.
RUN --mount=type=secret,id=cargo,target=/usr/local/cargo/config.toml \
    --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    SQLX_OFFLINE=true LIBZ_SYS_STATIC=1 STOCKYARD_REVISION="$REVISION" cargo auditable build --locked --profile "$PROFILE" --bin stockyard \
    && cargo cyclonedx --format json --spec-version 1.5 --describe binaries --quiet \
    && install -D "target/$([ "$PROFILE" = dev ] && echo debug || echo "$PROFILE")/stockyard" /out/usr/local/bin/stockyard \
    && install -D -m 644 stockyard_bin.cdx.json /out/usr/share/doc/stockyard/stockyard.cdx.json \
    && install -D -m 644 LICENSE /out/usr/share/doc/stockyard/LICENSE

FROM ${RUN_IMAGE}
COPY --from=build /out/ /
# Nobody in particular.
USER 10001:10001
# Whether it runs on this base at all is known here, not in production.
RUN ["/usr/local/bin/stockyard", "--version"]
# Where it came from, told by who builds it.
ARG VERSION=
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="stockyard" \
      org.opencontainers.image.description="What stands in which warehouse, at every moment: Kafka movements in, stock answers out" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
ENV STOCKYARD__HTTP__LISTEN=0.0.0.0:8000
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/usr/local/bin/stockyard", "healthcheck", "--url", "http://127.0.0.1:8000/readyz"]
# By its full path and without a shell between, so that signals reach it.
ENTRYPOINT ["/usr/local/bin/stockyard"]
CMD ["serve", "--role", "all"]
