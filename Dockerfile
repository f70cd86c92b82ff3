# The image of one node: the `corelane` binary on a minimal Debian without shell or package manager.
#
#   docker build -t corelane .
#
# Privileges. The image runs as user 1337 and needs none for forwards, SOCKS5 and HBONE without the
# clients' addresses. Transparent capture needs, in the network namespace of the workload:
#   CAP_NET_RAW    original source addresses (IP_TRANSPARENT) and packet marks (SO_MARK)
#   CAP_NET_ADMIN  for packet marks before kernel 5.17, and for the set-up step that loads capture rules
# Engines give added capabilities to root only, so transparent capture runs as
#   docker run --user 0:1337 --cap-drop ALL --cap-add NET_RAW ...
# A shared node in Kubernetes enters pods' namespaces and needs CAP_SYS_ADMIN as well:
# docs/kubernetes.md, packaging/kubernetes.
# The node listens on 15000-15080, above the privileged ports: CAP_NET_BIND_SERVICE is not needed.
#
# io_uring. Engines forbid it by default; the node then runs on epoll and says so. To allow it:
#   --security-opt seccomp=packaging/seccomp-corelane.json --ulimit memlock=67108864
# (a ring of 1,024 entries locks about 104 KiB for each shard). A filter on system calls does not see
# operations inside a ring: give the container no more files and capabilities than it needs.
#
# Descriptors. Each captured connection takes one or two: raise the limit, --ulimit nofile=1048576.
#
# Nothing is written: --read-only works. Mount the state file and the identity directory read-only.

# Both stages are Debian 12, so that the binary finds the C library it was linked with.
FROM rust:1.95.0-slim-bookworm AS build
# The toolchain image has a C compiler; the build of jemalloc also wants make.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY Cargo.toml Cargo.lock ./
COPY src ./src
# Profiles that `corelane doctor` compares with.
COPY tuning/profiles ./tuning/profiles
COPY benches ./benches
# Workspace members must exist for cargo to read the manifest; they are not built.
COPY tests ./tests
COPY perf ./perf
RUN cargo build --release --locked --bin corelane \
    && install -D -m 0755 target/release/corelane /image/usr/local/bin/corelane

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /image/ /
COPY LICENSE /usr/share/doc/corelane/LICENSE
LABEL org.opencontainers.image.title="corelane" \
      org.opencontainers.image.description="Zero-trust node tunnel, in ztunnel's place or beside it" \
      org.opencontainers.image.licenses="Apache-2.0"
# Istio's charts mount token and roots below /, and the default paths are relative (./var/run/secrets,
# ./etc/istio/config/mesh). The base image would start in /home/nonroot.
WORKDIR /
# The mesh's conventional user and group of node proxies; capture rules may exempt them.
USER 1337:1337
# 15001 outbound, 15006 plain text, 15008 HBONE, 15020 metrics, 15021 readiness. 15000 (admin),
# 15053 (DNS) and 15080 (SOCKS5) are on loopback and not for other hosts.
EXPOSE 15001 15006 15008 15020 15021
STOPSIGNAL SIGTERM
# Istio's chart gives the arguments `proxy ztunnel` and no command.
ENTRYPOINT ["/usr/local/bin/corelane"]
CMD ["proxy"]
