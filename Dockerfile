# whatsapp-service as one static binary in an otherwise empty image.
#
#   docker build -t whatsapp-service .
#   docker run -d -e INTERNAL_SECRET=… -p 127.0.0.1:3000:3000 -v sessions:/data whatsapp-service

FROM rust:1.95-bookworm AS build
WORKDIR /src
# Cargo reads every member's manifest, although only the service is built.
COPY Cargo.toml Cargo.lock ./
COPY examples/receiver-rust examples/receiver-rust
COPY sandbox sandbox
COPY whatsapp-simulator whatsapp-simulator
COPY whatsapp-service whatsapp-service
# The target is named, though it is the builder's own, so that RUSTFLAGS stay away from proc macros: those are shared
# libraries, which a static C library cannot make. `-p`, because a build of the whole workspace would also turn on the
# sandbox's features in the service. The caches keep compiled dependencies from one build to the next; the service itself
# is always compiled, since Cargo goes by time stamps, and an older checkout would pass for the newer one in the cache.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    find whatsapp-service -exec touch {} + \
    && target="$(rustc --print host-tuple)" \
    && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked -p whatsapp-service --target "$target" \
    && install -D "target/$target/release/whatsapp-service" /out/whatsapp-service \
    && install -d -m 0700 /out/volume/data

# Nothing else is needed at run time: the TLS roots are compiled in, and all times are UTC.
FROM scratch
COPY --from=build /out/whatsapp-service /whatsapp-service
# By way of its parent, since a folder copied by name would lose its mode.
COPY --from=build --chown=65532:65532 /out/volume /
USER 65532:65532
# Also where SQLite puts its temporary files when there is no /tmp.
WORKDIR /data
ENV DATA_DIR=/data
VOLUME /data
EXPOSE 3000
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s --retries=3 CMD ["/whatsapp-service", "health"]
ENTRYPOINT ["/whatsapp-service"]
