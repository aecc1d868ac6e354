# One image a component, each with its binary as the entry point and nothing to run beside it:
#
#   docker build --target store -t varve-io/store:v0.1.0 .
#
# Operators start the images with the component's name as first argument (`sidecar --…`), which
# the binaries accept. `bucket` is the operator's hand tool; it needs a directory for temporary files.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd ./cmd
COPY pkg ./pkg
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=0.1.0
ARG REVISION=unknown
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath \
    -ldflags "-s -w -X github.com/prometheus/common/version.Version=$VERSION -X github.com/prometheus/common/version.Revision=$REVISION" \
    -o /out/ ./cmd/sidecar ./cmd/store ./cmd/query ./cmd/compact ./cmd/bucket

# No shell, no package manager; the authorities for TLS to object storage. Nothing writes
# outside the volumes that the manifests mount, so the root can be read-only.
FROM scratch AS base
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65534:65534

FROM base AS sidecar
COPY --from=build /out/sidecar /bin/sidecar
ENTRYPOINT ["/bin/sidecar"]

FROM base AS store
COPY --from=build /out/store /bin/store
ENTRYPOINT ["/bin/store"]

FROM base AS query
COPY --from=build /out/query /bin/query
ENTRYPOINT ["/bin/query"]

FROM base AS compact
COPY --from=build /out/compact /bin/compact
ENTRYPOINT ["/bin/compact"]

FROM base AS bucket
COPY --from=build /out/bucket /bin/bucket
ENTRYPOINT ["/bin/bucket"]
