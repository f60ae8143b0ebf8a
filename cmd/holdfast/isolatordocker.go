package main

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"go.uber.org/zap"

	"github.com/holdfast-io/holdfast/internal/fault"
	"github.com/holdfast-io/holdfast/isolator"
	"github.com/holdfast-io/holdfast/isolator/dockerplugin"
	"github.com/holdfast-io/holdfast/isolator/driver/docker"
	"github.com/holdfast-io/holdfast/isolator/server"
)

// dockerSocketFlag is where Docker finds the isolator as a volume plugin.
type dockerSocketFlag struct {
	path  string
	asked bool // on the command line: then it is an error when it cannot be had
}

// listenDocker opens the isolator's face towards Docker. Without a word on the command line a node that has no place for it goes without.
func listenDocker(s *isolator.Service, f isolatorFlags, log *zap.Logger) (*server.Server, error) {
	if f.docker.path == "" {
		return nil, nil
	}
	dir, err := filepath.Abs(f.dir)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "directory %s", f.dir)
	}
	srv, err := server.Listen(s, server.Options{Socket: f.docker.path, Group: -1, Log: log, Remove: true,
		Handler: dockerplugin.Handler(s, dockerplugin.Options{Dir: filepath.Join(dir, "docker"), Log: log})})
	if err == nil {
		log.Info("docker volume plugin", zap.String("name", dockerplugin.Name(f.docker.path)), zap.String("socket", f.docker.path))
		return srv, nil
	}
	if f.docker.asked {
		return nil, err
	}
	level := zap.WarnLevel
	if errors.Is(err, fs.ErrPermission) {
		level = zap.InfoLevel // an ordinary user has no business there
	}
	log.Log(level, "no docker volume plugin: Docker on this node cannot use these volumes", zap.Error(err))
	return nil, nil
}

// serveAll serves on every socket until ctx ends or one fails.
func serveAll(ctx context.Context, all ...*server.Server) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all = slices.DeleteFunc(all, func(s *server.Server) bool { return s == nil })
	ended := make(chan error, len(all))
	for _, s := range all {
		go func() { ended <- s.Serve(ctx) }()
	}
	var first error
	for range all {
		if err := <-ended; first == nil {
			first = err
		}
		cancel()
	}
	return first
}

// otherPlugins names the plugins that announce themselves, without this isolator.
func otherPlugins(dirs docker.Dirs, f isolatorFlags) []string {
	return slices.DeleteFunc(dirs.Names(), func(name string) bool { return f.docker.path != "" && name == dockerplugin.Name(f.docker.path) })
}
