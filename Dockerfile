# An image with Caddy, the plugin and nothing else, built in a clone of the repository:
#
#	docker build -t caddy-mtls-auth .
#
# GO_IMAGE is an image with Go, git, a shell and the certificates of the public CAs.
ARG GO_IMAGE=docker.io/library/golang:1.26

FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
# with .git, from which Go reads the version
COPY . .
# the flags are those of scripts/release, so that the program is the same
RUN CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o /image/usr/bin/caddy ./cmd/caddy
RUN mkdir -p /image/etc/caddy /image/etc/ssl/certs /image/tmp /empty && \
	chmod 1777 /image/tmp && \
	cp LICENSE /image/ && \
	cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/

FROM scratch
COPY --from=build /image/ /
# what is written belongs to the user that Caddy runs as, also in new volumes
COPY --from=build --chown=65532:65532 /empty/ /config/
COPY --from=build --chown=65532:65532 /empty/ /data/
LABEL org.opencontainers.image.title="caddy-mtls-auth" \
	org.opencontainers.image.source="https://github.com/caddymtls/caddy-mtls-auth" \
	org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/usr/bin XDG_CONFIG_HOME=/config XDG_DATA_HOME=/data
USER 65532:65532
VOLUME /config /data
EXPOSE 80 443 443/udp
# the exit status is 1 if no Caddy with the plugin answers on its admin endpoint
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["caddy", "mtls", "version", "--running"]
CMD ["caddy", "run", "--config", "/etc/caddy/Caddyfile"]
