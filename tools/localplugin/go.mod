module github.com/holdfast-io/holdfast/tools/localplugin

go 1.26.0

require (
	github.com/docker/docker v24.0.9+incompatible
	github.com/docker/go-plugins-helpers v0.0.0-20240701071450-45e2431495c8
)

require (
	github.com/Microsoft/go-winio v0.6.4 // indirect
	github.com/containerd/containerd v1.7.35 // indirect
	github.com/containerd/log v0.1.0 // indirect
	github.com/coreos/go-systemd v0.0.0-20191104093116-d3cd4ed1dbcf // indirect
	github.com/docker/go-connections v0.8.2 // indirect
	github.com/docker/go-units v0.5.0 // indirect
	github.com/moby/sys/mount v0.3.5 // indirect
	github.com/moby/sys/mountinfo v0.7.2 // indirect
	github.com/moby/sys/userns v0.1.0 // indirect
	github.com/opencontainers/runc v1.1.12 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/sirupsen/logrus v1.10.2 // indirect
	golang.org/x/sys v0.49.0 // indirect
	gotest.tools/v3 v3.5.2 // indirect
)
